import fastifySwagger from '@fastify/swagger'
import fastifySwaggerUi from '@fastify/swagger-ui'
import type { FastifyPluginAsync, FastifySchema } from 'fastify'
import fp from 'fastify-plugin'
import type { RouteSession } from 'fastify-token-registry'
import { packageInfo } from '../package-info.ts'

const tags = [
  { name: 'auth', description: 'Register, sign in and out, passwords' },
  { name: 'sessions', description: 'The sessions of who is signed in' },
  { name: 'devices', description: 'The devices that they are on' },
  { name: 'admin', description: 'What administrators see and end' },
  { name: 'audit', description: 'Who did what, and proof of it; for who has the scope `audit:read`' },
  { name: 'metrics', description: 'For Prometheus' },
  { name: 'health', description: 'For load balancers and orchestrators' }
]

/** OpenAPI 3.1 from the routes' schemas, at /docs and /docs/json. */
const docs: FastifyPluginAsync<{ publicUrl: string | null }> = async (app, { publicUrl }) => {
  const { version, description, license, homepage } = await packageInfo()

  await app.register(fastifySwagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'fastify-token-registry', version, description, license: { name: license, identifier: license }, contact: { name: 'fastify-token-registry', url: homepage } },
      servers: [{ url: publicUrl ?? '/' }],
      tags,
      components: {
        securitySchemes: {
          session: { type: 'http', scheme: 'bearer', description: 'The `accessToken` of a sign-in' },
          operator: { type: 'http', scheme: 'bearer', description: '`METRICS_TOKEN`' }
        }
      }
    },
    transform: ({ schema, url, route }) => ({ schema: withSecurity(schema, route.config?.session ?? false), url })
  })
  await app.register(fastifySwaggerUi, {
    routePrefix: '/docs',
    staticCSP: true,
    // Without TLS, by any address but this machine's own, browsers would ask in vain for the scripts of the page by https.
    transformStaticCSP: policy => policy.replace('upgrade-insecure-requests;', ''),
    uiConfig: { docExpansion: 'list' }
  })
  app.get('/api-docs', { schema: { hide: true } }, async (_request, reply) => reply.redirect('/docs'))
}

/** What a route asks for in `config.session` is what the docs say of its security, unless it is for operators. */
function withSecurity (schema: FastifySchema | undefined, session: RouteSession): FastifySchema {
  return { ...schema, ...schema?.hide !== true && { security: session === false && schema?.security !== undefined ? schema.security : securityOf(session) } }
}

function securityOf (session: RouteSession): ReadonlyArray<Record<string, readonly string[]>> {
  if (session === false) return []
  const { scope = [], optional = false } = session === true ? {} : session
  const needed = { session: typeof scope === 'string' ? [scope] : scope }
  return optional ? [{}, needed] : [needed]
}

export default fp(docs, { name: 'app-docs', fastify: '5.x', dependencies: ['app-rate-limits'] })
