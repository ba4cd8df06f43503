/**
 * Options that Fastify and Node take only when the server is made, each set on purpose. Times are milliseconds.
 *
 * @example
 * const app = Fastify({ ...strictServerOptions, trustProxy: '10.0.0.0/8' })
 */
export const strictServerOptions = Object.freeze({
  /** A whole request arrives within this, however slowly its body is dribbled. Fastify sets no limit. */
  requestTimeout: 30_000,
  /** A socket on which nothing moves is closed: a client that stops reading holds no memory. Fastify sets no limit. */
  connectionTimeout: 60_000,
  /** Longer than the 60 s that load balancers keep an idle connection, so that none is closed under a request. */
  keepAliveTimeout: 72_000,
  /** Clients connect anew now and then, and so find the processes that were added. */
  maxRequestsPerSocket: 10_000,
  /** In bytes: parsing takes less than a few milliseconds, and 60 sessions with the largest meta fit. */
  bodyLimit: 262_144,
  /** X-Forwarded-For is what the client says, until the proxy in front is named. */
  trustProxy: false,
  routerOptions: Object.freeze({
    /** In characters: the longest `sub`. */
    maxParamLength: 256
  }),
  http: Object.freeze({
    /** The headers arrive within this, however slowly they are dribbled. */
    headersTimeout: 10_000,
    /** How often Node looks for requests that are late by the two limits above: 30 s would let them live on as long again. */
    connectionsCheckingInterval: 2_000,
    /** In bytes, for all headers together; more is a 431. */
    maxHeaderSize: 16_384,
    /** HTTP/1.1 without a Host header is a 400 (RFC 9112 §3.2). */
    requireHostHeader: true,
    /** The strict parser refuses what request smuggling is made of. */
    insecureHTTPParser: false
  })
})
