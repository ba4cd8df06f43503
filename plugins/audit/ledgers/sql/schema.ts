/** Names of tables, by what they are prefixed with. */
export function tablesOf (prefix: string) {
  return { head: `${prefix}_head`, entries: `${prefix}_entries`, tiles: `${prefix}_tiles`, checkpoints: `${prefix}_checkpoints`, keys: `${prefix}_keys` }
}

export type Tables = ReturnType<typeof tablesOf>

/** Of an index: what queries say so that it is used. */
export const rare = 'type not in (\'intent\', \'session.start\', \'session.rotate\', \'session.end\')'
export const another = 'subject is distinct from sub'

/** Statements that make the tables. The keys of persons stand in one of their own, which backups can leave out. */
export function schemaOf ({ head, entries, tiles, checkpoints, keys }: Tables): string[] {
  return [
    `create table ${head} (one boolean constraint pk_${head} primary key default true constraint idx_${head}_one check (one), size bigint not null, frontier bytea not null, erasures bigint not null)`,
    `insert into ${head} (size, frontier, erasures) values (0, '', 0)`,
    `create table ${entries} (
      seq bigint constraint pk_${entries} primary key,
      at bigint not null,
      type text not null,
      outcome text not null,
      tenant text not null,
      sub text,
      client text,
      target_kind text,
      target_id text,
      subject text,
      op text,
      hash bytea not null,
      leaf text not null,
      kept text
    )`,
    `create index idx_${entries}_at on ${entries} using brin (at)`,
    // Most entries are of few types, and are found without an index.
    `create index idx_${entries}_type on ${entries} (type, seq) where ${rare}`,
    `create index idx_${entries}_sub on ${entries} (sub, seq) where sub is not null`,
    // Mostly it is who acted.
    `create index idx_${entries}_subject on ${entries} (subject, seq) where ${another}`,
    `create index idx_${entries}_target_id on ${entries} using hash (target_id)`,
    `create index idx_${entries}_op on ${entries} (op) where op is not null`,
    `create table ${tiles} (level smallint, index bigint, hashes bytea not null, constraint pk_${tiles} primary key (level, index))`,
    // Hashes cannot be compressed.
    `alter table ${tiles} alter column hashes set storage external`,
    `create table ${checkpoints} (size bigint constraint pk_${checkpoints} primary key, note text not null)`,
    `create table ${keys} (owner text constraint pk_${keys} primary key, finder text not null constraint idx_${keys}_finder unique, wrapped text not null)`
  ]
}
