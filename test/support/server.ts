import { Writable } from 'node:stream'
import type { FastifyInstance, InjectOptions, LightMyRequestResponse } from 'fastify'
import type { Test } from 'tap'
import { loadConfig } from '../../app/config.ts'
import { createServer, type Server, type ServerOptions } from '../../app/server.ts'
import { embeddedDataDir } from './embedded.ts'

export const password = 'correct horse battery staple'

export interface TestServer extends Server {
  dataDir: string
  /** Everything that was logged. */
  log: string[]
}

/** The reference server on an embedded database of its own and without rate limits, closed with the test. */
export async function testServer (t: Test, env: Record<string, string> = {}, options: Pick<ServerOptions, 'now'> = {}): Promise<TestServer> {
  const dataDir = await embeddedDataDir(t)
  const log: string[] = []
  const stream = new Writable({
    write (chunk, _encoding, done) {
      log.push(String(chunk))
      done()
    }
  })
  const config = loadConfig({ DATA_DIR: dataDir, RATE_LIMIT_GLOBAL: 'off', RATE_LIMIT_AUTH: 'off', ...env })
  const server = await createServer({ config, logger: { level: 'trace', stream }, ...options })
  t.teardown(() => server.app.close())
  return { ...server, dataDir, log }
}

interface Answer {
  statusCode: number
  headers: LightMyRequestResponse['headers']
  body: Record<string, unknown>
}

/** Sends JSON, and reads it. */
export async function call (app: FastifyInstance, method: NonNullable<InjectOptions['method']>, url: string, { body, token }: { body?: object, token?: string } = {}): Promise<Answer> {
  const response = await app.inject({
    method,
    url,
    ...body !== undefined && { payload: body },
    ...token !== undefined && { headers: { authorization: `Bearer ${token}` } }
  })
  return { statusCode: response.statusCode, headers: response.headers, body: response.body === '' ? {} : response.json() }
}

export interface SignedIn {
  accessToken: string
  refreshToken: string
  session: { id: string }
  user: { id: string }
}

export async function register (app: FastifyInstance, email: string): Promise<void> {
  const { statusCode, body } = await call(app, 'POST', '/api/auth/register', { body: { email, password } })
  if (statusCode !== 201) throw new Error(`register: ${JSON.stringify(body)}`)
}

export async function signIn (app: FastifyInstance, email: string, using = password): Promise<SignedIn> {
  const { statusCode, body } = await call(app, 'POST', '/api/auth/login', { body: { email, password: using } })
  if (statusCode !== 200) throw new Error(`login: ${JSON.stringify(body)}`)
  return body as unknown as SignedIn // what the response schema says
}
