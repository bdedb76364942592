-- Values at the edges of 43 types, a type in each column: those by which other exporters were compared with this one.
create type public.band as enum ('u', 'g', 'r', 'i', 'z', 'y');
create table public.edge (
  k int4, s text, vc varchar(20), bp char(6), nm name, i8 int8, i2 int2, oi oid, bo bool,
  f8 float8, f4 real, n38 numeric(38,10), n76 numeric(60,20), nneg numeric(5,-2), nn numeric, mon numeric(12,2),
  ts timestamp, tz timestamptz, d date, tm time, tmz timetz, iv interval,
  u uuid, j jsonb, js json, b bytea, e public.band, ia int4[], i2d int4[], ilb int4[], fa float8[], ta text[], na numeric(20,5)[],
  tsa timestamptz[], inet inet, r int4range, pt point, bits bit(5), x xml, hs tsvector);
insert into public.edge values
(1,'','','','',9223372036854775807,32767,4294967295,true,'NaN','NaN','9999999999999999999999999999.9999999999','1234567890123456789012345678901234567890.12345678901234567890',1200,'NaN',0,
 'infinity','infinity','infinity','24:00:00','24:00:00+05:30','1 mon -1 day 00:00:00.000001','00000000-0000-0000-0000-000000000000','{"a":1e400,"b":"\u00e9"}','{"a" : 1,"a":2}','\x','u','{}','{{1,2},{3,null}}','[0:2]={1,2,3}','{NaN,Infinity,null}','{"",null,NULL,"NULL"}','{1.5,null,NaN}','{infinity,2020-01-01 00:00+00}','10.0.0.1/8','[1,5)','(1,2)','10101','<a/>','a:1 b:2'),
(2,'NULL','NULL','NULL','NULL',-9223372036854775808,-32768,0,false,'Infinity','Infinity','-9999999999999999999999999999.9999999999','-0.00000000000000000001',-99900,'123456789012345678901234567890123456789012345678901234567890.5',-0.01,
 '-infinity','-infinity','-infinity','00:00:00','00:00:00-12','-178000000 years','ffffffff-ffff-ffff-ffff-ffffffffffff','null','null','\x00','y','{null}','{{{1}},{{2}}}','{1}','{}','{}','{}','{}','::1','empty','(0,NaN)','00000','<b>x</b>',''),
(3,E'a\nb\r\n"c",\\N\t',E'a\n"b",c','ab','ab',0,0,1,null,'-Infinity','-Infinity','0.0000000001','0',0,'1e-30',9999999999.99,
 '0044-03-15 12:00:00 BC','0044-03-15 12:00:00+00 BC','0044-03-15 BC','12:34:56.789012','12:34:56.789012+00','0','12345678-1234-5678-1234-567812345678','"s\"q"','"x"','\x0061ff5c22','g','{1,2,3}','{}','{2147483647,-2147483648}','{1}','{"a,b","c\"d","e\\f"}','{123456789012345.12345}','{-infinity}','fe80::/10','(,5)','(1e300,-1e300)','11111',null,'x'),
(4,'ünïcødé 北京 🚀','北京','é','n',1,1,2,true,'-0','-0',null,null,null,'0.1000',null,
 '294276-12-31 23:59:59.999999','294276-12-31 23:59:59.999999+00','5874897-12-31','00:00:00.000001','12:00+14','178000000 years',null,'[1, 2.50, 123456789012345678901234567890]','[]','\xdeadbeef','r',null,null,null,null,null,null,null,null,null,null,null,null,null),
(5,null,null,null,null,null,null,null,null,5e-324,1e-45,1.5,1.5,100,100,1.1,'2020-02-29 23:59:59.999999','2020-02-29 23:59:59.999999+13','1970-01-01',null,null,'1 year 2 mons 3 days 04:05:06.789',null,null,null,null,null,'{5}','{{5}}','{5}','{1e-300}','{ü}','{0.00001}','{1969-12-31 23:59:59.999999+00}','1.2.3.4','[1,]','(0,0)','10000','<c/>','z'),
(6,' x ',' x ',' x',' x',9007199254740993,5,7,false,0.1,0.1,0.1,0.1,100,0.1,0.10,'1999-12-31 23:59:59.999999','1999-12-31 23:59:59.999999-08','1999-12-31','23:59:59.999999','23:59:59.999999-08','-1 year +1 day -00:00:00.5','0000000f-0000-0000-0000-000000000000','{}','{}','\x7f80','z','{1,1}','{{1}}','{1}','{2}','{x}','{1}','{2000-01-01 00:00+00}','::','[3,4)','(3,4)','01010','<d/>','w'),
(7,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null,null);
alter table public.edge add tsfar timestamp, add tsy10k timestamp, add nan38 numeric(38,10), add nana numeric(20,5)[];
update public.edge set tsfar = ts, tsy10k = '12345-06-07 08:09:10.111213', ts = '9999-12-31 23:59:59.999999', tz = '9999-12-31 23:59:59.999999+00' where k = 4;
update public.edge set tsfar = ts, tsy10k = ts, nan38 = 1.5 where k = 5;
update public.edge set nan38 = 'NaN', nana = na, na = '{1.5,null}' where k = 1;
