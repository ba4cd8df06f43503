import { and, eq, sql, type SQL } from 'drizzle-orm'
import type { Database } from '../database/database.ts'
import { users } from '../database/schema.ts'
import { emailKey } from './email.ts'
import { AdministratorTaken, EmailTaken } from './errors.ts'

/** A user, without what must stay on the server. */
export interface User {
  readonly id: string
  readonly email: string
  readonly name: string | null
  readonly roles: readonly string[]
  /** When the user was shut out, or null. */
  readonly disabledAt: Date | null
  readonly createdAt: Date
  readonly updatedAt: Date
}

/** What a sign-in is checked against. */
export interface Credentials {
  readonly user: User
  /** null: this user has no password. */
  readonly passwordHash: string | null
}

export type Users = ReturnType<typeof createUsers>

const administrator = 'administrator'

/** What roles permit: an administrator everything but what the audit log has sealed, which auditors read. */
const scopes = new Map([
  [administrator, ['sessions:admin', 'users:admin', 'audit:read']],
  ['auditor', ['audit:read', 'audit:pii']]
])

/** What the roles of a user permit. */
export function scopesOf ({ roles }: Pick<User, 'roles'>): readonly string[] {
  return [...new Set(roles.flatMap(role => scopes.get(role) ?? []))]
}

const user = {
  id: users.id,
  email: users.email,
  name: users.name,
  roles: users.roles,
  disabledAt: users.disabledAt,
  createdAt: users.createdAt,
  updatedAt: users.updatedAt
}

const now = sql`now()`

/**
 * The users of the service. E-mail addresses meet by `emailKey`. Each call throws what `Database.query` throws, a user's `id` that
 * is no UUID among it (400).
 */
export function createUsers ({ query }: Pick<Database, 'query'>) {
  async function insert (given: { email: string, name?: string | null, passwordHash: string, roles?: string[] }): Promise<User | null> {
    const row = { ...given, emailKey: emailKey(given.email) }
    return first(await query(db => db.insert(users).values(row).onConflictDoNothing({ target: users.emailKey }).returning(user)))
  }

  async function find (where: SQL): Promise<User | null> {
    return first(await query(db => db.select(user).from(users).where(where)))
  }

  async function update (id: string, change: { disabledAt: SQL | null }): Promise<User | null> {
    return first(await query(db => db.update(users).set({ ...change, updatedAt: now }).where(eq(users.id, id)).returning(user)))
  }

  return {
    /**
     * Registers a user. Of any number of calls for one address at the same time, one succeeds.
     *
     * @throws {EmailTaken} 409
     */
    async create (given: { email: string, name?: string | null, passwordHash: string }): Promise<User> {
      const made = await insert(given)
      if (made === null) throw new EmailTaken()
      return made
    },

    /**
     * Makes an administrator, where the address is free. One that exists keeps its password.
     *
     * @returns null where there was one
     * @throws {AdministratorTaken} where the address is another user's: whoever registered it first must not become one by that
     */
    async ensureAdministrator (given: { email: string, passwordHash: string }): Promise<User | null> {
      const made = await insert({ ...given, roles: [administrator] })
      if (made !== null) return made
      const owner = await find(eq(users.emailKey, emailKey(given.email)))
      if (owner === null || !owner.roles.includes(administrator)) throw new AdministratorTaken()
      return null
    },

    /** Whether a user of that address is an administrator. */
    async hasAdministrator (email: string): Promise<boolean> {
      return (await find(eq(users.emailKey, emailKey(email))))?.roles.includes(administrator) === true
    },

    async findById (id: string): Promise<User | null> {
      return await find(eq(users.id, id))
    },

    async findByEmail (email: string): Promise<User | null> {
      return await find(eq(users.emailKey, emailKey(email)))
    },

    /** One statement, found or not, so that its time does not tell whether the user exists. */
    async credentials (of: { email: string } | { id: string }): Promise<Credentials | null> {
      const where = 'id' in of ? eq(users.id, of.id) : eq(users.emailKey, emailKey(of.email))
      return first(await query(db => db.select({ user, passwordHash: users.passwordHash }).from(users).where(where)))
    },

    /**
     * Gives a user another password.
     *
     * @param replacing only where this hash still stands, so that re-hashing at a sign-in never undoes a change made meanwhile
     * @returns whether it was set
     */
    async setPasswordHash (id: string, passwordHash: string, replacing?: string): Promise<boolean> {
      const where = and(eq(users.id, id), replacing === undefined ? undefined : eq(users.passwordHash, replacing))
      const set = await query(db => db.update(users).set({ passwordHash, updatedAt: now }).where(where).returning({ id: users.id }))
      return set.length === 1
    },

    /** Shuts a user out, who stays out since the first time. Ending the sessions is up to the caller. null: no such user. */
    async disable (id: string): Promise<User | null> {
      return await update(id, { disabledAt: sql`coalesce(${users.disabledAt}, now())` })
    },

    async enable (id: string): Promise<User | null> {
      return await update(id, { disabledAt: null })
    }
  }
}

function first<T> (rows: readonly T[]): T | null {
  return rows[0] ?? null
}
