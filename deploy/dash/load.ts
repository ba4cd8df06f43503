import { setTimeout as after } from 'node:timers/promises'

const password = 'correct horse battery staple'
const users = 4

/** What the server must be told: its people have few sessions each, and meet the limit. */
export const loadEnv = { RATE_LIMIT_GLOBAL: 'off', RATE_LIMIT_AUTH: 'off', SESSION_LIMIT: '2', SESSION_LIMIT_STRATEGY: 'refuse', LOG_LEVEL: 'warn' }

interface Answer {
  accessToken?: string
  refreshToken?: string
  sessions?: Array<{ id: string }>
}

/**
 * People who use the reference server, some of them badly, until `signal` aborts. The server runs with `loadEnv`.
 *
 * @param address of the server, as `http://127.0.0.1:3000`
 */
export async function load (address: string, signal: AbortSignal): Promise<void> {
  async function send (method: string, path: string, { body, token }: { body?: object, token?: string } = {}): Promise<Answer> {
    const response = await fetch(address + path, {
      method,
      signal: AbortSignal.any([signal, AbortSignal.timeout(10_000)]),
      headers: { ...body !== undefined && { 'content-type': 'application/json' }, ...token !== undefined && { authorization: `Bearer ${token}` } },
      ...body !== undefined && { body: JSON.stringify(body) }
    })
    const text = await response.text()
    return text.startsWith('{') ? JSON.parse(text) : {}
  }

  /** Where a limit refuses it, in the place of another session. */
  async function signIn (email: string): Promise<Answer> {
    const answer = await send('POST', '/api/auth/login', { body: { email, password } })
    const [other] = answer.sessions ?? []
    return other === undefined ? answer : await send('POST', '/api/auth/login', { body: { email, password, endOthers: [other.id] } })
  }

  /** Signs in, looks around, refreshes, and leaves in one of several ways. */
  async function visit (email: string, turn: number): Promise<void> {
    await send('POST', '/api/auth/login', { body: { email, password: 'not the password of anybody' } })
    const { accessToken, refreshToken } = await signIn(email)
    if (accessToken === undefined || refreshToken === undefined) throw new Error('nobody is signed in')
    for (let i = 0; i < 20; i++) await send('GET', '/api/auth/me', { token: accessToken })
    await send('GET', '/api/sessions', { token: accessToken })
    const next = await send('POST', '/api/auth/refresh', { body: { refreshToken } })
    await send('POST', '/api/auth/refresh', { body: { refreshToken: next.refreshToken ?? '' } })
    await send('POST', '/api/auth/refresh', { body: { refreshToken: 'trr_of_nobody' } })
    // The first again: somebody has stolen it, or so it looks.
    if (turn % 3 === 0) await send('POST', '/api/auth/refresh', { body: { refreshToken } })
    if (turn % 3 === 1) await send('POST', '/api/auth/logout', { token: accessToken })
    await send('GET', '/api/auth/me', { token: accessToken })
    await send('GET', '/api/nothing')
    await send('POST', '/api/auth/login', { body: { email } })
  }

  async function person (email: string): Promise<void> {
    let failures = 0
    for (let turn = 0; !signal.aborted; turn++) {
      try {
        // Whoever is known stays so.
        if (turn === 0) await send('POST', '/api/auth/register', { body: { email, password } })
        await visit(email, turn)
        failures = 0
      } catch {
        // What fails shows on the board. Not at once again.
        await after(Math.min(100 * 2 ** failures++, 2000) * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => {})
      }
    }
  }

  await Promise.all(Array.from({ length: users }, async (_, i) => await person(`person${i}@example.org`)))
}
