create table users (
  id uuid constraint pk_users primary key default gen_random_uuid(),
  email text not null,
  email_key text not null,
  name text,
  password_hash text,
  roles text[] not null default '{}',
  disabled_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
--> statement-breakpoint
create unique index idx_users_email_key on users (email_key);
