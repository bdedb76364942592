-- Nothing is anybody's by default; `absurd db grant` gives a role its functions.
do $$
begin
    execute format('revoke all on schema %I from public', current_schema());
    execute format('revoke all on all functions in schema %I from public', current_schema());
    execute format('revoke all on all tables in schema %I from public', current_schema());
    execute format('revoke all on all sequences in schema %I from public', current_schema());
end $$;
