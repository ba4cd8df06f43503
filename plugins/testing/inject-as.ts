import type { InjectOptions, LightMyRequestResponse } from 'fastify'
import type { SessionData, TokenRegistry } from '../token-registry/index.ts'

/** As much of a Fastify server as is needed to make requests of it. */
export interface Injectable {
  tokenRegistry: TokenRegistry
  ready (): PromiseLike<unknown>
  inject (request: InjectOptions): Promise<LightMyRequestResponse>
}

/**
 * Signs somebody in, for tests of routes.
 *
 * @param session as `tokenRegistry.issue` takes it
 * @returns `app.inject` with the session's token; everything else of a request stays as it is given
 * @throws what `tokenRegistry.issue` throws
 * @example
 * const inject = await injectAs(app, { sub: 'alice', scope: ['admin'] })
 * const response = await inject('/me')
 */
export async function injectAs (app: Injectable, session: SessionData): Promise<(request: string | InjectOptions) => Promise<LightMyRequestResponse>> {
  await app.ready()
  const { token } = await app.tokenRegistry.issue(session)
  return async request => {
    const options = typeof request === 'string' ? { url: request } : request
    return await app.inject({ ...options, headers: { ...options.headers, authorization: `Bearer ${token}` } })
  }
}
