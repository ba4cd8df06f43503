import type fastifySession from '@fastify/session'
import type { Redis } from 'ioredis'

const DAY = 86_400

/** Sessions of @fastify/session in Redis, as JSON under one key each, read by one GET: what connect-redis does, which takes another client. */
export class RedisSessions implements fastifySession.SessionStore {
  readonly #client: Redis

  constructor (client: Redis) {
    this.#client = client
  }

  get (...[id, callback]: Parameters<fastifySession.SessionStore['get']>): void {
    this.#client.get(keyOf(id)).then(text => callback(null, text === null ? null : JSON.parse(text)), callback)
  }

  set (...[id, session, callback]: Parameters<fastifySession.SessionStore['set']>): void {
    this.#client.set(keyOf(id), JSON.stringify(session), 'EX', DAY).then(() => callback(), callback)
  }

  destroy (...[id, callback]: Parameters<fastifySession.SessionStore['destroy']>): void {
    this.#client.del(keyOf(id)).then(() => callback(), callback)
  }
}

function keyOf (id: string): string {
  return `sess:${id}`
}
