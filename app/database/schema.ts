import { sql } from 'drizzle-orm'
import { pgTable, text, timestamp, uniqueIndex, uuid } from 'drizzle-orm/pg-core'

export const users = pgTable('users', {
  id: uuid('id').primaryKey().default(sql`gen_random_uuid()`),
  /** As its owner wrote it: where mail goes. */
  email: text('email').notNull(),
  /** What users are unique by. */
  emailKey: text('email_key').notNull(),
  name: text('name'),
  /** null: this user cannot sign in with a password. */
  passwordHash: text('password_hash'),
  roles: text('roles').array().notNull().default([]),
  disabledAt: timestamp('disabled_at', { withTimezone: true }),
  createdAt: timestamp('created_at', { withTimezone: true }).notNull().defaultNow(),
  updatedAt: timestamp('updated_at', { withTimezone: true }).notNull().defaultNow()
}, table => [uniqueIndex('idx_users_email_key').on(table.emailKey)])
