import type { FastifyBaseLogger, FastifyInstance } from 'fastify'
import { TokenInvalid, type RegistryError, type SessionMeta, type SessionRecord, type TokenRegistry } from 'fastify-token-registry'
import { Background } from '../background.ts'
import type { Mailer } from '../mail/mailer.ts'
import type { Passwords } from '../passwords/passwords.ts'
import { scopesOf, type Credentials, type User, type Users } from '../users/users.ts'
import { PasswordWrong, ResetRefused, SignInRefused, UserDisabled } from './errors.ts'

declare module 'fastify-token-registry' {
  interface SessionMeta {
    /** What the owner calls the device. */
    deviceName?: string
  }
}

/** How one-time tokens for a reset are told from others. */
const RESET = 'password-reset'

export interface AuthParts {
  registry: TokenRegistry
  sessionJwt: FastifyInstance['sessionJwt']
  users: Users
  passwords: Passwords
  mailer: Mailer
  /** For the link in mails; null: the mail holds the token alone. */
  publicUrl: string | null
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

/** Who may come in: users and passwords on one side, sessions on the other. */
export function createAuth ({ registry, sessionJwt, users, passwords, mailer, publicUrl, log }: AuthParts) {
  const background = new Background(log, 1000)

  return {
    /** @throws `APP_PASSWORD_REFUSED` (400), `APP_USER_EMAIL_TAKEN` (409) */
    async register ({ email, password, name }: { email: string, password: string, name?: string }): Promise<User> {
      passwords.check(password)
      return await users.create({ email, name: name ?? null, passwordHash: await passwords.hash(password) })
    },

    /**
     * Signs a user in. An unknown user and a wrong password cost the same work and get the same answer.
     *
     * @throws `APP_SIGN_IN_REFUSED` (401), `APP_USER_DISABLED` (403)
     */
    async signIn ({ email, password, meta }: { email: string, password: string, meta: SessionMeta }): Promise<SignedIn> {
      const credentials = await users.credentials({ email })
      const hash = await verifiedHash(credentials, password)
      if (credentials === null || hash === null) throw new SignInRefused()
      if (credentials.user.disabledAt !== null) throw new UserDisabled()

      const { user } = credentials
      const issued = await registry.issue({ sub: user.id, use: 'refresh', scope: scopesOf(user), meta })
      // A password change or a shut-out that came in between has ended the sessions it saw, but not this one.
      const now = await users.credentials({ id: user.id })
      if (now?.passwordHash !== hash || now.user.disabledAt !== null) {
        await registry.revokeById(issued.session.id, 'password_changed')
        throw new SignInRefused()
      }
      return signedIn(now.user, issued.session, issued.token)
    },

    /** @throws {TokenInvalid} 401, also where the user is gone or disabled, whose session then ends */
    async refresh (refreshToken: string): Promise<SignedIn> {
      const { token, session } = await registry.rotate(refreshToken).catch(oneAnswer)
      const user = await userOf(session)
      if (user === null || user.disabledAt !== null) {
        await registry.revokeById(session.id, 'disabled')
        throw new TokenInvalid()
      }
      return signedIn(user, session, token)
    },

    userOf,

    /**
     * Changes a password that is known.
     *
     * @returns how many other sessions ended
     * @throws `APP_PASSWORD_WRONG` (403), `APP_PASSWORD_REFUSED` (400)
     */
    async changePassword (session: Pick<SessionRecord, 'id' | 'sub'>, { currentPassword, newPassword, endOthers }: { currentPassword: string, newPassword: string, endOthers: boolean }): Promise<number> {
      passwords.check(newPassword)
      const hash = await verifiedHash(await users.credentials({ id: session.sub }), currentPassword)
      if (hash === null) throw new PasswordWrong()
      const changed = await users.setPasswordHash(session.sub, await passwords.hash(newPassword), hash)
      if (!changed) throw new PasswordWrong()
      return endOthers ? await registry.revokeAll({ sub: session.sub, except: [session.id], reason: 'password_changed', by: session.sub }) : 0
    },

    /** Mails a link to reset the password, where there is such a user. Returns at once, so that nothing tells whether there is. */
    forgotPassword (email: string): void {
      background.run('a mail to reset a password', async () => {
        const user = await users.findByEmail(email)
        if (user === null || user.disabledAt !== null) return
        const { token } = await registry.issue({ sub: user.id, use: 'once', client: RESET, ttl: '1h' })
        const link = publicUrl === null ? token : `${publicUrl}/reset-password#${token}`
        mailer.send({
          to: user.email,
          subject: 'Reset your password',
          text: `Somebody, hopefully you, asked to reset the password of this address.\n\n${link}\n\nThis works once and for an hour. If it was not you, there is nothing to do.\n`
        })
      })
    },

    /** @throws `APP_RESET_REFUSED` (400), `APP_PASSWORD_REFUSED` (400), which leaves the link valid */
    async resetPassword (token: string, password: string): Promise<void> {
      passwords.check(password)
      const passwordHash = await passwords.hash(password)
      const { sub } = await registry.consume(token, { client: RESET }).catch(error => { throw isCallersFault(error) ? new ResetRefused() : error })
      if (!await users.setPasswordHash(sub, passwordHash)) throw new ResetRefused()
      await registry.revokeAll({ sub, reason: 'password_changed', by: sub })
    },

    async ensureAdministrator ({ email, password }: { email: string, password: string }): Promise<void> {
      passwords.check(password)
      if (await users.ensureAdministrator({ email, passwordHash: await passwords.hash(password) })) log.info('the first administrator was made')
    },

    close: () => background.close()
  }

  async function userOf ({ sub }: Pick<SessionRecord, 'sub'>): Promise<User | null> {
    return await users.findById(sub)
  }

  /** The hash that a password was verified against, as it stands now; null for a wrong password. */
  async function verifiedHash (credentials: Credentials | null, password: string): Promise<string | null> {
    const hash = credentials?.passwordHash ?? null
    const { matches, needsRehash } = await passwords.verify(hash, password)
    if (!matches || credentials === null || hash === null) return null
    if (!needsRehash) return hash
    const renewed = await passwords.hash(password)
    return await users.setPasswordHash(credentials.user.id, renewed, hash) ? renewed : hash
  }

  function signedIn (user: User, session: SessionRecord, refreshToken: string): SignedIn {
    const { token, expiresIn } = sessionJwt.sign(session)
    return { user, session, accessToken: token, refreshToken, expiresIn }
  }
}

/** Invalid, expired, revoked and reused tokens are one for the caller. */
function oneAnswer (error: unknown): never {
  throw isCallersFault(error) ? new TokenInvalid({ cause: error }) : error
}

function isCallersFault (error: unknown): boolean {
  return error instanceof Error && (error as Partial<RegistryError>).critical === false
}
