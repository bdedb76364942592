"""Every type that a column of the server can have, as its catalogue lists them, with values at their edges.

What is written for a type by hand are texts for its input function.  A type that nobody has written any for, as those
that a later server brings, gets whatever of `ANY` its input function takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql

EXTENSIONS = ("citext", "cube", "earthdistance", "hstore", "intarray", "isn", "lo", "ltree", "pg_trgm", "seg", "vector")
"""Those that bring types; created where the server offers them."""

ANY = ("", "0", "1", "-1", "a", "NULL", "a b", "1.5", "{}", "{1}", "(1,2)", "[1,2]", "2020-01-01", "t", "-", "0/0")

_FLOATS = ("0", "-0", "0.1", "NaN", "Infinity", "-Infinity", "1.7", "9007199254740993", "-1e-30")
_TEXTS = (
    "",
    "NULL",
    "null",
    " x ",
    'a\nb\r\n"c",\\N\t',
    "ünïcødé 北京 🚀",
    "e\u0301 \u200d ﷽",
    "{}",
    "\\x41",
    "x" * 70_000,
)
_DATES = ("infinity", "-infinity", "4713-01-01 BC", "0044-03-15 BC", "0001-01-01", "1969-12-31", "1970-01-01",
          "1999-12-31", "2000-01-01", "9999-12-31", "10000-01-01")  # fmt: skip
_TIMES = ("00:00:00", "24:00:00", "23:59:59.999999", "00:00:00.000001", "12:34:56.789012")
_MOMENTS = (*_DATES, "4714-11-24 00:00:00 BC", "1969-12-31 23:59:59.999999", "294246-12-31 23:59:59.999999",
            "294247-01-10 04:00:54.775807", "294247-01-10 04:00:54.775808", "294276-12-31 23:59:59.999999")  # fmt: skip
_NUMBERS = (
    "0", "1", "-1", "0.1", "-0.00000000000000000001", "1e-30", "0.10000", "9999", "10000", "-10000", "99999999.99",
    "9" * 28 + "." + "9" * 10, "-" + "9" * 38, "9" * 39, "9" * 76, "-" + "9" * 76, "9" * 77, "1" + "0" * 76, "NaN",
    "Infinity", "-Infinity", "0.00123", "-99900", "1e-16383", "1e131071", "9" * 131072, "123456.5", "-0.5",
)  # fmt: skip

VALUES: dict[str, tuple[str, ...]] = {
    "bool": ("t", "f"),
    "bytea": ("", "\\x00", "\\x0061ff5c22", "NULL", "\\x" + "00ff" * 5000),
    "char": ("", "a", "\\000", "\\200", "\\377", "\\\\", " "),
    "name": ("", "NULL", "a b", "ü" * 31, "x" * 63),
    "int8": ("0", "1", "-1", "9223372036854775807", "-9223372036854775808", "9007199254740993"),
    "int2": ("0", "32767", "-32768"),
    "int4": ("0", "2147483647", "-2147483648"),
    "int2vector": ("", "1 2", "-32768"),
    "oidvector": ("", "1 4294967295"),
    "oid": ("0", "1", "4294967295"),
    "xid": ("0", "4294967295"),
    "xid8": ("0", "18446744073709551615"),
    "cid": ("0", "4294967295"),
    "tid": ("(0,0)", "(4294967295,65535)"),
    "text": _TEXTS,
    "varchar": _TEXTS,
    "bpchar": (*_TEXTS, "ab   "),
    "json": ("null", '{"a" : 1,"a":2}', '"\\u00e9"', "1e400", " [1, 2.50 ] ", '""', '"NULL"', '"' + "ü" * 9000 + '"'),
    "jsonb": ("null", '{"a":1e400}', "[1, 2.50, 123456789012345678901]", '""', '"x\\"y"', "{}", '"\\u00e9🚀"'),
    "jsonpath": ("$", '$."a b"[*] ? (@ > 1)', "strict $.a"),
    "xml": ("<a/>", "a & b", '<?xml version="1.0" encoding="UTF-8"?><a>ü</a>', "", "<a>\n</a>"),
    "float4": (*_FLOATS, "1e-45", "3.4028235e38", "-1.1754944e-38"),
    "float8": (*_FLOATS, "5e-324", "-5e-324", "1.7976931348623157e308", "2.2250738585072014e-308"),
    "money": ("0", "-0.01", "92233720368547758.07", "-92233720368547758.08"),
    "point": ("(0,-0)", "(NaN,Infinity)", "(0.1,1e300)", "(5e-324,-1e-300)"),
    "box": ("((0,0),(1,1))", "(1e300,NaN),(0.1,-Infinity)"),
    "lseg": ("[(0,0),(1,-1)]",),
    "line": ("{1,-1,0}", "{0.1,1e300,-0}"),
    "path": ("[(0,0),(1,1)]", "((0,0),(1,1),(0.1,1e300))"),
    "polygon": ("((0,0))", "((0,0),(1,1),(0.1,1e300))"),
    "circle": ("<(0,0),1>", "<(NaN,-0),Infinity>"),
    "inet": ("::1", "::", "10.0.0.1/8", "1.2.3.4", "fe80::/10", "::ffff:1.2.3.4", "255.255.255.255/0"),
    "cidr": ("::1", "10.0.0.0/8", "1.2.3.4", "0.0.0.0/0", "2001:db8::/32"),
    "macaddr": ("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"),
    "macaddr8": ("00:00:00:00:00:00:00:00", "08:00:2b:01:02:03:04:05"),
    "bit": ("", "1", "0", "10101", "1" * 100),
    "varbit": ("", "1", "00000", "1" * 100),
    "date": (*_DATES, "4714-11-24 BC", "5874897-12-31", "294276-12-31"),
    "time": _TIMES,
    "timetz": ("00:00+00", "24:00:00+05:30", "23:59:59.999999-15:59", "12:34:56.789012+00:00:01", "12:00+15:59:59"),
    "timestamp": _MOMENTS,
    "timestamptz": tuple(text if "infinity" in text else f"{text} UTC" for text in _MOMENTS),
    "interval": (
        "0",
        "1 year 2 mons -3 days 04:05:06.789",
        "-178000000 years",
        "178000000 years",
        "-00:00:00.000001",
        "infinity",
        "-infinity",
        "2147483647 days",
        "-2147483648 days",
        "1 mon -1 day",
        "2562047788:00:54.775807",
    ),
    "numeric": _NUMBERS,
    "uuid": (
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "12345678-1234-5678-1234-56789ABCDEF0",
    ),
    "tsvector": ("", "a", "a:1A b:2,3 'it''s':16383", "北京:1"),
    "tsquery": ("", "a & !b | 'c d':*A", "a <-> b"),
    "pg_lsn": ("0/0", "FFFFFFFF/FFFFFFFF"),
    "txid_snapshot": ("1:1:", "10:20:10,14"),
    "pg_snapshot": ("1:1:", "10:20:10,14"),
    "aclitem": ("=r/pg_monitor", "pg_monitor=r*w/pg_monitor"),
    "refcursor": ("", "NULL", "a b"),
    "regproc": ("-", "now", "4294967295"),
    "regprocedure": ("-", "now()", "4294967295"),
    "regoper": ("0", "||/"),
    "regoperator": ("0", "+(int4,int4)"),
    "regclass": ("-", "pg_class", 'information_schema."tables"', "4294967295"),
    "regtype": ("-", "int4", "character varying", "4294967295"),
    "regrole": ("-", "pg_monitor", "4294967295"),
    "regnamespace": ("-", "pg_catalog", "4294967295"),
    "regcollation": ("-", '"C"', "4294967295"),
    "citext": _TEXTS,
    "hstore": ("", 'a=>1, "b c"=>NULL, d=>"NULL"', '"a\\"b"=>"x,=>y"'),
    "ltree": ("", "Top.Science.Astronomy"),
    "lquery": ("Top.*@{1,2}", "*.a|b.*"),
    "ltxtquery": ("a & b*", "a"),
    "yes_or_no": ("YES", "NO"),
    "cube": ("(6378168,0,0)", "(1,2),(3,4)", "(0)", "(0.1,1e300)", "()"),
    "seg": ("1", "1.50 .. 2", "~5", "<0.10", "5 .. "),
    "vector": ("[1,2,3]", "[0.1,-0,1e-45]"),
    "halfvec": ("[1,2.5]",),
    "sparsevec": ("{1:1.5,3:2}/5", "{}/5"),
    "ean13": ("978-0-393-04002-9", "0000000000000"),
    "isbn": ("0-393-04002-X",),
    "isbn13": ("978-0-393-04002-9",),
    "ismn13": ("979-0-060-11561-5",),
    "issn13": ("977-1436-452-00-8",),
    "ismn": ("M-060-11561-5",),
    "issn": ("1436-4522",),
    "upc": ("220356483481",),
}
"""Texts that the input function of a base type takes; by the type's name without its schema."""

MODIFIED = (
    "numeric(38,10)", "numeric(39,10)", "numeric(76,0)", "numeric(76,76)", "numeric(77,2)", "numeric(5,-2)",
    "numeric(3,5)", "numeric(20,5)[]", "numeric(1000,1000)", "numeric(4,4)", "numeric(12,2)", "varchar(5)", "char(5)",
    "char(5)[]", "bit(5)", "bit varying(3)[]", "timestamp(0)", "timestamptz(3)", "time(0)", "interval(0)",
    "interval year to month", "numeric(60,20)[]", "numeric(1,0)",
)  # fmt: skip
"""Types with modifiers, to be filled with the values of the type that they modify."""

OWN = (
    """create type every.mood as enum ('', 'NULL', 'sad', 'a "b", c', '{}', 'ü')""",
    """create type every.pair as (a int, "b c" text)""",
    """create type every.nested as (p every.pair, ps every.pair[], n numeric, t timestamptz)""",
    """create domain every.price as numeric(9,3)""",
    """create domain every.cheap as every.price check (value < 100)""",
    """create domain every.grid as int[]""",
    """create type every.floats as range (subtype = float8, multirange_type_name = every.many_floats)""",
    # Casts to text that say something else.
    """create function every.lie(every.mood) returns text language sql immutable as $$select 'lie'$$""",
    """create cast (every.mood as text) with function every.lie(every.mood)""",
    """create function every.lie(every.pair) returns text language sql immutable as $$select 'lie'$$""",
    """create cast (every.pair as text) with function every.lie(every.pair)""",
)

_TYPES = """
    select t.oid::int8 as oid, format_type(t.oid, -1) as name, t.typname as short, t.typtype::text as kind,
           coalesce(e.oid, t.typbasetype, 0)::int8 as element, t.typdelim::text as delimiter,
           coalesce(r.rngsubtype, m.rngsubtype, 0)::int8 as subtype,
           array(select a.atttypid::int8 from pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0
                 and not a.attisdropped and t.typtype = 'c' order by a.attnum) as fields
    from pg_type t
         left join pg_type e on e.oid = t.typelem and e.typarray = t.oid
         left join pg_range r on r.rngtypid = t.oid
         left join pg_range m on m.rngmultitypid = t.oid
    where t.typisdefined and t.typtype <> 'p' and coalesce(e.typtype <> 'p', true)
    order by t.oid
"""

_REFUSED_INPUT = "0A000"
"""What an input function says that takes nothing, as that of pg_node_tree."""


@dataclass(slots=True)
class Type:
    """A type of the catalogue."""

    oid: int
    name: str
    short: str
    kind: str
    element: int
    """Type of an array's elements, or that a domain is made of."""
    delimiter: str
    subtype: int
    fields: list[int]
    texts: list[str] = field(default_factory=list)
    """Values that its input function takes."""
    takes_none: bool = False
    """Whether no text is a value of it."""

    @property
    def made_of(self) -> list[int]:
        """Other types that it is made of."""
        return [oid for oid in (self.element, self.subtype, *self.fields) if oid]


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a column for each of some types."""

    name: str
    columns: dict[str, str]
    """Name of a column: its type in SQL."""
    rows: int


def make_types(connection: psycopg.Connection[Any]) -> dict[int, Type]:
    """Make types of our own beside those of the server, and values for all of them; by OID.

    The connection is in autocommit mode.
    """
    connection.execute("create schema every")
    for statement in OWN:
        connection.execute(statement)
    offered = {name for (name,) in connection.execute("select name from pg_available_extensions").fetchall()}
    for name in EXTENSIONS:
        if name in offered:
            connection.execute(sql.SQL("create extension {}").format(sql.Identifier(name)))
    for each in (Type(*row) for row in connection.execute(_TYPES).fetchall()):
        if each.kind in ("b", "e", "r", "m"):
            domain = sql.Identifier(f"d{each.oid}")
            connection.execute(sql.SQL("create domain every.{} as {}").format(domain, sql.SQL(each.name)))
    types = {each.oid: each for each in (Type(*row) for row in connection.execute(_TYPES).fetchall())}
    while without := [oid for oid, each in types.items() if not all(needed in types for needed in each.made_of)]:
        for oid in without:  # such as the row type of pg_statistic, which has an anyarray, and what has that
            del types[oid]
    done: set[int] = set()

    def fill(each: Type) -> None:
        if each.oid in done:
            return
        done.add(each.oid)
        for needed in each.made_of:
            fill(types[needed])
        with connection.transaction():
            _fill(connection, each, types)

    for each in types.values():
        fill(each)
    return types


def make_tables(connection: psycopg.Connection[Any], types: dict[int, Type], width: int = 40) -> list[Table]:
    """Tables in the schema `every`, with columns of all types and those of `MODIFIED`; the last row is all NULL."""
    by_name = {each.name: each for each in types.values()}
    columns: list[tuple[str, str, list[str]]] = [(f"t{each.oid}", each.name, each.texts) for each in types.values()]
    for number, modified in enumerate(MODIFIED):
        bare = connection.execute("select format_type(%s::regtype, -1)", (modified,)).fetchone() or ("",)
        with connection.transaction():
            texts = _taken(connection, modified, by_name[bare[0]].texts)
        columns.append((f"m{number}", modified, texts))
    tables = []
    for first in range(0, len(columns), width):
        some = columns[first : first + width]
        name = f"every.table{first}"
        listed = ", ".join(f"{column} {kind}" for column, kind, _ in some)
        connection.execute(f"create table {name} (k int, {listed}) with (fillfactor = 10)")  # of many pages
        rows = max(len(texts) for _, _, texts in some) + 1
        with connection.cursor() as cursor, cursor.copy(f"copy {name} from stdin") as copy:
            for row in range(rows):
                copy.write_row([row, *(texts[row] if row < len(texts) else None for _, _, texts in some)])
        tables.append(Table(name, {name: kind for name, kind, _ in some}, rows))
    return tables


def _fill(connection: psycopg.Connection[Any], each: Type, types: dict[int, Type]) -> None:
    each.texts = _taken(connection, each.name, _wanted(connection, each, types), each)
    if not each.texts and not each.takes_none:
        each.texts = _taken(connection, each.name, ANY, each)


def _taken(connection: psycopg.Connection[Any], name: str, texts: Iterable[str], each: Type | None = None) -> list[str]:
    """Those of the texts that are values of the type: all at once, or tried one by one if any is none."""
    some = list(dict.fromkeys(texts))
    try:
        with connection.transaction():
            rows = sql.SQL(", ").join(sql.SQL("({})").format(sql.Literal(text)) for text in some)
            if each is None:  # a cast would make values fit the modifier, which a column does not
                connection.execute(sql.SQL("create temp table probe (v {}) on commit drop").format(sql.SQL(name)))
                connection.execute(sql.SQL("insert into probe values {}").format(rows))
                connection.execute("drop table probe")
            elif some:
                connection.execute(
                    sql.SQL("select {}").format(
                        sql.SQL(", ").join(sql.SQL("{}::{}").format(sql.Literal(text), sql.SQL(name)) for text in some)
                    )
                )
        return some
    except psycopg.Error as error:
        if each is not None and error.sqlstate == _REFUSED_INPUT:
            each.takes_none = True
        if len(some) == 1:
            return []
    return [text for one in some for text in _taken(connection, name, [one], each)]


def _wanted(connection: psycopg.Connection[Any], each: Type, types: dict[int, Type]) -> Iterator[str]:
    if each.kind == "e":
        query = "select enumlabel from pg_enum where enumtypid = %s order by enumsortorder"
        yield from (label for (label,) in connection.execute(query, (each.oid,)).fetchall())
    elif each.kind == "d":
        each.takes_none = types[each.element].takes_none
        yield from (*types[each.element].texts, *VALUES.get(each.short, ()))
    elif each.kind == "c":
        firsts = [types[oid].texts[:2] for oid in each.fields]
        yield f"({','.join('' for _ in firsts)})"
        for place in (0, -1):
            yield f"({','.join(quoted(texts[place]) if texts else '' for texts in firsts)})"
        if each.short == "nested":
            yield """("(1,""a,(\\\\""b)"")","{""(1,\\\\""x,y\\\\"")"",NULL,""(,)""}",NaN,infinity)"""
    elif each.subtype:
        ranges = ["empty", "(,)"] if each.kind == "r" else ["{}", "{(,)}"]
        for text in types[each.subtype].texts:
            if len(text) < 100:
                bounds = f"[{quoted(text)},{quoted(text)}]"
                ranges += [bounds, f"({quoted(text)},)"] if each.kind == "r" else [f"{{{bounds}}}"]
        yield from ranges
    elif each.element:
        yield "{}"
        yield "{NULL}"
        some = [quoted(text) for text in types[each.element].texts if len(text) < 1000]
        parted = each.delimiter
        for text in some:
            yield f"{{{text}}}"
        if some:
            yield f"{{{parted.join([*some, 'NULL', *some])}}}"
            yield f"{{{{{some[0]}{parted}NULL}}{parted}{{{some[-1]}{parted}{some[0]}}}}}"
            yield f"[0:1]={{{some[0]}{parted}{some[-1]}}}"
    else:
        yield from VALUES.get(each.short, ANY)


def quoted(text: str) -> str:
    """A text within an array, a row or a range."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
