import type { FastifyBaseLogger, FastifyInstance, FastifyRequest } from 'fastify'
import { refusalOf, TokenInvalid, type RegistryError, type SessionMeta, type SessionRecord, type TokenRegistry } from 'fastify-token-registry'
import type { Audit, AuditEvent } from 'fastify-token-registry/audit'
import type { Notifications } from 'fastify-token-registry/session-limits'
import { userTarget } from '../audit/events.ts'
import { Background } from '../background.ts'
import type { Config } from '../config.ts'
import type { Mailer } from '../mail/mailer.ts'
import type { Passwords } from '../passwords/passwords.ts'
import { checkPassword } from '../passwords/policy.ts'
import { EmailTaken } from '../users/errors.ts'
import { scopesOf, type User, type Users } from '../users/users.ts'
import { PasswordWrong, ResetRefused, SignInRefused, UserDisabled } from './errors.ts'
import { resetMail } from './reset-mail.ts'

/** How one-time tokens for a reset are told from others. */
const RESET = 'password-reset'

export interface AuthParts {
  registry: TokenRegistry
  audit: Audit
  sessionJwt: FastifyInstance['sessionJwt']
  users: Users
  passwords: Passwords
  mailer: Mailer
  notifications: Notifications
  /** For mails. */
  urls: Pick<Config, 'publicUrl' | 'resetUrl'>
  log: FastifyBaseLogger
}

export interface SignedIn {
  user: User
  session: SessionRecord
  accessToken: string
  refreshToken: string
  /** Seconds. */
  expiresIn: number
}

export type Auth = ReturnType<typeof createAuth>

/** Who may come in: users and passwords on one side, sessions on the other. What is done for a request is recorded as done by it. */
export function createAuth ({ registry, audit, sessionJwt, users, passwords, mailer, notifications, urls, log }: AuthParts) {
  const background = new Background(log, 1000)

  return {
    /** @throws `APP_PASSWORD_REFUSED` (400), `APP_USER_EMAIL_TAKEN` (409) */
    async register ({ email, password, name }: { email: string, password: string, name?: string }, request: FastifyRequest): Promise<User> {
      checkPassword(password)
      const passwordHash = await passwords.hash(password)
      const event: AuditEvent = { type: 'user.register', data: { email } }
      return await request.audit(event, async () => {
        const user = await users.create({ email, name: name ?? null, passwordHash }).catch(async error => {
          // Whose address it is can have it forgotten here too.
          const owner = error instanceof EmailTaken ? await users.findByEmail(email) : null
          if (owner !== null) event.target = userTarget(owner.id)
          throw error
        })
        event.actor = { sub: user.id }
        event.target = userTarget(user.id)
        return user
      })
    },

    /**
     * Signs a user in. An unknown user and a wrong password cost the same work and get the same answer.
     *
     * @param endOthers ids of sessions of the user that end in the same step
     * @throws `APP_SIGN_IN_REFUSED` (401), `APP_USER_DISABLED` (403), `FST_SESSION_LIMIT` (429)
     */
    async signIn ({ email, password, meta, endOthers }: { email: string, password: string, meta: SessionMeta, endOthers: string[] }, request: FastifyRequest): Promise<SignedIn> {
      const { user, hash } = await verify({ email }, password)
      if (user === null || hash === null) {
        await request.audit({ ...signInOf(email, user), outcome: 'failure', reason: 'APP_SIGN_IN_REFUSED' })
        throw new SignInRefused()
      }
      if (user.disabledAt !== null) {
        await request.audit({ ...signInOf(email, user), outcome: 'denied', reason: 'APP_USER_DISABLED' })
        throw new UserDisabled()
      }

      const sessions = registry.for(request)
      const issued = await sessions.issue({ sub: user.id, use: 'refresh', scope: scopesOf(user), meta, ...endOthers.length > 0 && { endOthers } })
      // A password change or a shut-out that came in between has ended the sessions it saw, but not this one.
      const now = await users.credentials({ id: user.id }).catch(async error => {
        await sessions.revokeById(issued.session.id)
        throw error
      })
      if (now?.passwordHash !== hash || now.user.disabledAt !== null) {
        await sessions.revokeById(issued.session.id, now?.passwordHash === hash ? 'disabled' : 'password_changed')
        throw new SignInRefused()
      }
      return signedIn(now.user, issued.session, issued.token)
    },

    /** @throws {TokenInvalid} 401, also where the user is gone or disabled, whose session then ends */
    async refresh (refreshToken: string, request: FastifyRequest): Promise<SignedIn> {
      const sessions = registry.for(request)
      // Looked up before the token is used up: used up without an answer, it would be taken for stolen when it comes again.
      const owner = await registry.get(refreshToken)
      const user = owner === null ? null : await userOf(owner)
      const { token, session } = await sessions.rotate(refreshToken).catch(error => { throw refusalOf(error) })
      if (user === null || user.disabledAt !== null) {
        await sessions.revokeById(session.id, 'disabled')
        throw new TokenInvalid()
      }
      return signedIn(user, session, token)
    },

    userOf,

    /**
     * Changes the password of who asks, and knows it.
     *
     * @returns how many other sessions ended
     * @throws `APP_PASSWORD_WRONG` (403), `APP_PASSWORD_REFUSED` (400)
     */
    async changePassword ({ currentPassword, newPassword, endOthers }: { currentPassword: string, newPassword: string, endOthers: boolean }, request: FastifyRequest): Promise<number> {
      const { session: { id, sub } } = request.requireAuth()
      checkPassword(newPassword)
      const ended = await request.audit({ type: 'password.change', target: userTarget(sub) }, async () => {
        const { hash } = await verify({ id: sub }, currentPassword)
        if (hash === null) throw new PasswordWrong()
        const changed = await passwords.hash(newPassword)
        if (!await users.setPasswordHash(sub, changed, hash)) throw new PasswordWrong()
        if (!endOthers) return 0
        try {
          return await endSessions(sub, [id], request)
        } catch (error) {
          // Who has stolen one must not keep it: undone, so that it can be asked for again.
          await users.setPasswordHash(sub, hash, changed)
          throw error
        }
      })
      if (ended === 0) tellChanged(sub)
      return ended
    },

    /** Mails a token to reset the password, where there is such a user. Returns at once, so that nothing tells whether there is. */
    forgotPassword (email: string, request: FastifyRequest): void {
      background.run('a mail to reset a password', async () => {
        const user = await users.findByEmail(email)
        await request.audit({ type: 'password.forgot', target: user && userTarget(user.id), data: { email } })
        if (user === null || user.disabledAt !== null) return
        const { token } = await registry.for(request).issue({ sub: user.id, use: 'once', client: RESET, ttl: '1h' })
        mailer.send({ to: user.email, ...resetMail(token, urls) })
      })
    },

    /** @throws `APP_RESET_REFUSED` (400), `APP_PASSWORD_REFUSED` (400), which as a database that fails leaves the token valid */
    async resetPassword (token: string, password: string, request: FastifyRequest): Promise<void> {
      checkPassword(password)
      const asked = await registry.get(token)
      const user = asked === null ? null : await userOf(asked)
      const event: AuditEvent = { type: 'password.reset', target: user && userTarget(user.id) }
      await request.audit(event, async () => {
        if (user === null) throw new ResetRefused()
        const passwordHash = await passwords.hash(password)
        const { sub } = await registry.for(request).consume(token, { client: RESET }).catch(error => { throw isCallersFault(error) ? new ResetRefused() : error })
        if (!await users.setPasswordHash(sub, passwordHash)) throw new ResetRefused()
        event.actor = { sub }
        let ended = 0
        try {
          ended = await endSessions(sub, [], request)
        } finally {
          if (ended === 0) tellChanged(sub)
        }
      })
    },

    async ensureAdministrator ({ email, password }: { email: string, password: string }): Promise<void> {
      if (await users.hasAdministrator(email)) return
      const event: AuditEvent = { type: 'user.register', data: { email } }
      const made = await audit.act(event, async () => {
        const made = await users.ensureAdministrator({ email, passwordHash: await passwords.hash(password) })
        // Another server may have made it meanwhile.
        Object.assign(event, made === null ? { outcome: 'failure', reason: 'APP_USER_EMAIL_TAKEN' } : { target: userTarget(made.id), data: { email, roles: made.roles } })
        return made
      })
      if (made === null) return
      log.info('the first administrator was made')
    },

    close: () => background.close()
  }

  async function endSessions (sub: string, kept: string[], request: FastifyRequest): Promise<number> {
    return await registry.for(request).revokeAll({ sub, except: kept, reason: 'password_changed', by: sub })
  }

  /** Where sessions ended their owner hears of it by that. */
  function tellChanged (sub: string): void {
    notifications.notify({ type: 'password-changed', sub, detail: { reason: 'password_changed', by: sub } })
  }

  async function userOf ({ sub }: Pick<SessionRecord, 'sub'>): Promise<User | null> {
    return await users.findById(sub)
  }

  /** Whose password is asked for, null for an unknown user, and the hash of it that stands now, null where it is wrong. */
  async function verify (of: { email: string } | { id: string }, password: string): Promise<{ user: User | null, hash: string | null }> {
    const { user = null, passwordHash: hash = null } = await users.credentials(of) ?? {}
    const { matches, needsRehash } = await passwords.verify(hash, password)
    if (!matches || user === null || hash === null) return { user, hash: null }
    if (!needsRehash) return { user, hash }
    const renewed = await passwords.hash(password)
    if (await users.setPasswordHash(user.id, renewed, hash)) return { user, hash: renewed }
    // Another sign-in has renewed it meanwhile, or the password was changed: what stands now decides.
    return await verify(of, password)
  }

  function signedIn (user: User, session: SessionRecord, refreshToken: string): SignedIn {
    const { token, expiresIn } = sessionJwt.sign(session)
    return { user, session, accessToken: token, refreshToken, expiresIn }
  }
}

/** Whoever it is: who is meant stands in it, so that they can be told of it. */
function signInOf (email: string, user: User | null): AuditEvent {
  return { type: 'session.start', target: user && userTarget(user.id), data: { email } }
}

function isCallersFault (error: unknown): boolean {
  return error instanceof Error && (error as Partial<RegistryError>).critical === false
}
