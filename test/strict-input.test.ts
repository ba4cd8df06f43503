import { connect, type AddressInfo } from 'node:net'
import { Type } from '@sinclair/typebox'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import t, { type Test } from 'tap'
import strictInput, { asInputError, strictServerOptions, type StrictInputOptions } from '../plugins/strict-input/index.ts'

const json = { 'content-type': 'application/json' }
const form = { 'content-type': 'application/x-www-form-urlencoded' }

async function build (t: Test, options: StrictInputOptions = {}, server: FastifyServerOptions = {}): Promise<FastifyInstance> {
  const app = Fastify(server)
  t.teardown(() => app.close())
  await app.register(strictInput, options)
  return app
}

/** A server that echoes what it understood of a body of this schema. */
async function echo (t: Test, body?: unknown, options: StrictInputOptions = {}): Promise<FastifyInstance> {
  const app = await build(t, options)
  app.post('/', body === undefined ? {} : { schema: { body } }, async request => ({ body: request.body }))
  return app
}

async function post (app: FastifyInstance, payload: string | Buffer, headers: Record<string, string> = json, url = '/'): Promise<{ status: number, message: string, body: unknown }> {
  const response = await app.inject({ method: 'POST', url, headers, payload })
  const { message, body } = response.json()
  return { status: response.statusCode, message, body }
}

/** What a server answers on a connection of its own until it closes it, while `more` is written every few milliseconds. */
async function exchange (app: FastifyInstance, bytes: string, more = ''): Promise<string> {
  if (!app.server.listening) await app.listen({ port: 0 })
  const { port } = app.server.address() as AddressInfo
  const socket = connect(port, '127.0.0.1')
  const dribble = more === '' ? undefined : setInterval(() => socket.write(more), 10)
  // The server may reset the connection while bytes are on their way: that is a close too.
  socket.on('error', () => {})
  let answer = ''
  socket.on('data', chunk => { answer += chunk.toString() })
  socket.write(bytes)
  await new Promise(resolve => socket.once('close', resolve))
  clearInterval(dribble)
  return answer
}

t.test('a number, a boolean and a list are not taken for one another in a body', async t => {
  const app = await echo(t, Type.Object({ n: Type.Integer() }))
  for (const wrong of ['"10"', 'true', '["7"]', 'null', '7.5', '1e400', '-1e400', '9007199254740993', '-9007199254740993']) {
    t.match(await post(app, `{"n":${wrong}}`), { status: 400, message: /^body\/n / }, wrong)
  }
  t.same(await post(app, '{"n":9007199254740991}'), { status: 200, message: undefined, body: { n: 9007199254740991 } })
})

t.test('numbers are exact unless their schema asks for more', async t => {
  const app = await echo(t, Type.Object({ n: Type.Optional(Type.Number()), wide: Type.Optional(Type.Number({ exclusiveMaximum: 1e300, exclusiveMinimum: -1e300 })) }))
  t.match(await post(app, '{"n":9007199254740993}'), { status: 400, message: 'body/n must be <= 9007199254740991' })
  t.equal((await post(app, '{"wide":1e20}')).status, 200)
  t.equal((await post(app, '{"wide":-1e20}')).status, 200)
  t.equal((await post(app, '{"wide":1e301}')).status, 400)
})

t.test('a field that no schema names is refused, however deep it stands', async t => {
  const app = await echo(t, Type.Object({
    name: Type.Optional(Type.String()),
    device: Type.Optional(Type.Object({ name: Type.String() })),
    list: Type.Optional(Type.Array(Type.Object({ id: Type.String() }))),
    pair: Type.Optional(Type.Tuple([Type.Object({ a: Type.Optional(Type.String()) })]))
  }))
  t.match(await post(app, '{"role":"admin"}'), { status: 400, message: 'body has an unknown field role: remove it' })
  t.match(await post(app, '{"device":{"name":"x","role":1}}'), { status: 400, message: 'body/device has an unknown field role: remove it' })
  t.match(await post(app, '{"list":[{"id":"x"},{"id":"x","role":1}]}'), { status: 400, message: 'body/list/1 has an unknown field role: remove it' })
  t.match(await post(app, '{"pair":[{"b":1}]}'), { status: 400, message: 'body/pair/0 has an unknown field b: remove it' })
  t.same((await post(app, '{"device":{"name":"x"}}')).body, { device: { name: 'x' } })
})

t.test('fields are known by every schema that applies to the object', async t => {
  const a = Type.Object({ a: Type.String() })
  const b = Type.Object({ b: Type.String() })
  const app = await build(t)
  const warnings = t.capture(console, 'warn')
  app.addSchema({ $id: 'b', ...b })
  app.post('/both', { schema: { body: Type.Intersect([a, Type.Ref('b')]) } }, async () => 'ok')
  app.post('/either', { schema: { body: Type.Union([a, Type.Ref('b')]) } }, async () => 'ok')
  app.post('/held', { schema: { body: Type.Object({ held: Type.Ref('b#') }) } }, async () => 'ok')
  app.post('/tree', { schema: { body: { $id: 'tree', type: 'object', properties: { in: { type: 'array', items: { $ref: '#' } } } } } }, async () => 'ok')
  app.post('/none', { schema: { body: { type: 'object' } } }, async () => 'ok')
  app.post('/shared', { schema: { body: { $id: 'b', ...b } } }, async () => 'ok')

  const status = async (url: string, payload: object): Promise<number> => (await app.inject({ method: 'POST', url, payload })).statusCode
  t.equal(await status('/both', { a: '', b: '' }), 200)
  t.equal(await status('/both', { a: '', b: '', c: '' }), 400)
  t.equal(await status('/either', { a: '' }), 200)
  t.equal(await status('/either', { b: '' }), 200)
  t.equal(await status('/either', { b: '', c: '' }), 400)
  t.equal(await status('/held', { held: { b: '' } }), 200)
  t.equal(await status('/held', { held: { b: '', c: '' } }), 400)
  t.equal(await status('/tree', { in: [{ in: [{}] }] }), 200)
  t.equal(await status('/tree', { in: [{ in: [{ c: '' }] }] }), 400)
  t.equal(await status('/none', {}), 200)
  t.equal(await status('/none', { a: '' }), 400)
  t.equal(await status('/shared', { b: '' }), 200)
  t.equal(await status('/shared', { b: '', c: '' }), 400)
  t.same(warnings(), [])
})

t.test('a schema can leave an object open', async t => {
  const app = await echo(t, Type.Object({
    any: Type.Optional(Type.Unknown()),
    open: Type.Optional(Type.Object({}, { additionalProperties: true })),
    texts: Type.Optional(Type.Record(Type.String(), Type.String())),
    numbers: Type.Optional(Type.Object({}, { additionalProperties: Type.Integer() }))
  }))
  const body = { any: { x: [1] }, open: { x: 1 }, texts: { x: '' }, numbers: { x: 1 } }
  t.same((await post(app, JSON.stringify(body))).body, body)
  t.equal((await post(app, '{"texts":{"x":1}}')).status, 400)
  t.equal((await post(app, '{"numbers":{"x":9007199254740993}}')).status, 400)
})

t.test('an explicit refusal of other fields is an error, not a filter', async t => {
  const app = await echo(t, Type.Object({ a: Type.Optional(Type.String()) }, { additionalProperties: false }))
  t.match(await post(app, '{"b":1}'), { status: 400, message: 'body has an unknown field b: remove it' })
})

t.test('messages say what to change and never repeat a value', async t => {
  const app = await echo(t, Type.Object({
    email: Type.Optional(Type.String({ format: 'email' })),
    id: Type.Optional(Type.String({ format: 'uuid' })),
    at: Type.Optional(Type.String({ format: 'date-time' })),
    kind: Type.Optional(Type.Union([Type.Literal('a'), Type.Literal('b'), Type.Null()])),
    level: Type.Optional(Type.Unsafe({ enum: ['low', 'high'] })),
    one: Type.Optional(Type.Unsafe({ oneOf: [Type.String(), Type.String({ maxLength: 100 })] })),
    must: Type.Optional(Type.Object({ name: Type.String() })),
    by: Type.Optional(Type.Record(Type.String(), Type.Integer()))
  }))
  const secret = 'trs_0123456789abcdefghijklmnopqrstuvwxyz0123456789'
  const cases: Record<string, string> = {
    [`{"email":"${secret}"}`]: 'body/email must match format "email"',
    [`{"id":"${secret}"}`]: 'body/id must match format "uuid"',
    [`{"at":"${secret}"}`]: 'body/at must match format "date-time"',
    [`{"kind":"${secret}"}`]: 'body/kind must be "a", or body/kind must be "b", or body/kind must be null',
    [`{"level":"${secret}"}`]: 'body/level must be one of ["low","high"]',
    [`{"one":"${secret}"}`]: 'body/one must match exactly one schema in oneOf',
    '{"must":{}}': 'body/must lacks the field name: add it',
    [`{"${secret}":1}`]: 'body has an unknown field …: remove it',
    [`{"by":{"${secret}":"x"}}`]: 'body/by/… must be integer',
    [`{"email":"${secret}`]: 'body is not JSON: check its quotes, commas and brackets',
    [`{"${secret}":"\\u0000"}`]: 'body/… holds NUL: remove it'
  }
  for (const [payload, message] of Object.entries(cases)) t.match(await post(app, payload), { status: 400, message }, payload)
})

t.test('JSON that readers understand differently is refused', async t => {
  const app = await echo(t)
  const nested = (depth: number): string => '['.repeat(depth) + ']'.repeat(depth)
  const cases: Array<[string, RegExp]> = [
    ['', /^body is empty/],
    [' \n', /^body is empty/],
    ['{"a":1', /^body is not JSON/],
    ['\uFEFF{}', /^body is not JSON/],
    ['{"a":"\0"}', /^body is not JSON/],
    [nested(33), /more than 32 levels/],
    ['{"a":'.repeat(33) + '1' + '}'.repeat(33), /more than 32 levels/],
    ['{"__proto__":{"admin":true}}', /__proto__/],
    ['{"a":[{"\\u005f_proto__":1}]}', /^body\/a\/0 has a field __proto__/],
    ['{"constructor":{"prototype":{"admin":true}}}', /constructor/],
    ['{"a":"\\ud800"}', /^body\/a holds half a surrogate pair/],
    ['{"a":["\\udc00\\ud800"]}', /^body\/a\/0 holds half a surrogate pair/],
    ['{"\\ud800":1}', /^the name of a field in body holds half/],
    ['{"a":"\\u0000"}', /^body\/a holds NUL/],
    ['"\\u0000"', /^body holds NUL/],
    ['{"a\\u0000":1}', /^the name of a field in body holds NUL/],
    ['{"a":{"b":-1e400}}', /^body\/a\/b is too large/],
    ['{"a":1,"a":2}', /holds a name twice/],
    ['{"x":[{"a":"\\":","\\u0061":2}]}', /holds a name twice/]
  ]
  for (const [payload, message] of cases) t.match(await post(app, payload), { status: 400, message }, payload.slice(0, 40))

  t.match(await post(app, Buffer.from([0x22, 0xff, 0x22])), { status: 400, message: /^body is not UTF-8/ })
  t.match(await post(app, Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22])), { status: 400, message: /^body is not UTF-8/ }, 'a surrogate in bytes')
  t.equal((await post(app, nested(32))).status, 200)
})

t.test('JSON that only looks suspicious arrives whole', async t => {
  const app = await echo(t)
  const body = { 'a:"b': ['\\', '\\"', '😀', ':', ''], constructor: 'Ferrari', prototype: {}, n: [1e308, -0.5, true, null], deep: { a: { a: 1 } } }
  t.same((await post(app, JSON.stringify(body))).body, body)
  t.same((await post(app, '7')).body, 7)
})

t.test('a megabyte of brackets is refused at once', async t => {
  const app = await echo(t)
  for (const payload of ['['.repeat(1_000_000), '['.repeat(500_000) + ']'.repeat(500_000), '{"a":'.repeat(150_000) + '1' + '}'.repeat(150_000)]) {
    const start = performance.now()
    t.equal((await post(app, payload)).status, 400)
    t.ok(performance.now() - start < 1000)
  }
})

t.test('a text body keeps to the same rules', async t => {
  const app = await echo(t)
  const text = { 'content-type': 'text/plain' }
  t.same((await post(app, 'hello', text)).body, 'hello')
  t.match(await post(app, 'a\0b', text), { status: 400, message: 'body holds NUL: remove it' })
  t.match(await post(app, Buffer.from([0xc3]), text), { status: 400, message: /^body is not UTF-8/ })
})

t.test('a form takes each parameter once', async t => {
  const app = await echo(t, Type.Object({ a: Type.String(), 'b c': Type.Optional(Type.String()) }), { form: true })
  t.same((await post(app, 'a=1%262&&b+c=%C3%A9=+x', form)).body, { a: '1&2', 'b c': 'é= x' })
  t.same((await post(app, 'a', form)).body, { a: '' })
  const cases: Array<[string | Buffer, RegExp]> = [
    ['a=1&a=2', /^body\/a is sent twice/],
    ['a=1&%61=1', /^body\/a is sent twice/],
    ['a=%00', /^body\/a holds NUL/],
    ['a=\0', /^body\/a holds NUL/],
    ['%00=a', /name of a field in body holds NUL/],
    ['a=%ED%A0%80', /not percent-encoded UTF-8/],
    ['a=100%', /not percent-encoded UTF-8/],
    [Buffer.from([0x61, 0x3d, 0xff]), /not UTF-8/],
    ['__proto__=1', /__proto__/],
    ['a=1&role=admin', /unknown field role/],
    ['', /lacks the field a/]
  ]
  for (const [payload, message] of cases) t.match(await post(app, payload, form), { status: 400, message }, String(payload))
})

t.test('a media type that nobody reads is a 415', async t => {
  const app = await echo(t, Type.Object({}))
  t.equal((await post(app, 'a=1', form)).status, 415, 'forms are read where they are asked for')
  t.equal((await post(app, '<a/>', { 'content-type': 'application/xml' })).status, 415)
})

t.test('a body of a type that the route does not list is a 415, not a body that nobody checks', async t => {
  const app = await build(t, { form: true })
  const content = { 'application/x-www-form-urlencoded': { schema: Type.Object({ a: Type.String() }) } }
  app.post('/', { schema: { body: { content } } }, async request => ({ body: request.body }))

  t.match(await post(app, '{"b":1}'), { status: 415, message: /application\/x-www-form-urlencoded/ })
  t.equal((await app.inject({ method: 'POST', url: '/' })).statusCode, 415)
  t.same((await post(app, 'a=1', { 'content-type': 'application/x-www-form-urlencoded; charset=utf-8' })).body, { a: '1' })
  t.equal((await post(app, 'a=1&b=2', form)).status, 400)
})

t.test('query strings and params are text that is made into what the schema says', async t => {
  const app = await build(t)
  const querystring = Type.Object({ n: Type.Optional(Type.Integer()), all: Type.Optional(Type.Boolean()), tags: Type.Optional(Type.Array(Type.String())) })
  app.get('/users/:id', { schema: { querystring, params: Type.Object({ id: Type.Integer() }) } }, async ({ query, params }) => ({ query, params }))
  app.get('/text/:id', async ({ params }) => params)

  t.same((await app.inject('/users/7?n=10&all=true&tags=a')).json(), { query: { n: 10, all: true, tags: ['a'] }, params: { id: 7 } })
  t.same((await app.inject('/users/7?tags=a&tags=b')).json().query, { tags: ['a', 'b'] })
  t.same((await app.inject('/text/%E2%82%AC%2525')).json(), { id: '€%25' })
  for (const url of [
    '/users/7?n=1&n=2', '/users/7?n=x', '/users/7?n=1e400', '/users/7?n=9007199254740993', '/users/7?unknown=1',
    '/users/x', '/users/1e400', '/users/7?q=%00', '/users/7?q=%ED%A0%80', '/users/7?q=%', '/text/%00', '/text/%ED%A0%80', '/nowhere%00'
  ]) t.equal((await app.inject(url)).statusCode, 400, url)
})

t.test('headers are made into what the schema says, and the others stay', async t => {
  const app = await build(t)
  app.addSchema({ $id: 'paging', type: 'object', properties: { 'X-Page': { type: 'integer' } }, required: ['X-Page'] })
  app.get('/', { schema: { headers: { $ref: 'paging#' } } }, async ({ headers }) => headers)

  t.match((await app.inject({ url: '/', headers: { 'x-page': '7', 'x-other': 'kept' } })).json(), { 'x-page': 7, 'x-other': 'kept' })
  t.match((await app.inject({ url: '/', headers: { 'x-page': 'x' } })).json(), { statusCode: 400, message: 'headers/x-page must be integer' })
  t.match((await app.inject('/')).json(), { statusCode: 400, message: 'headers lacks the field x-page: add it' })
})

t.test('a header that decides who asks stands once', async t => {
  const app = await build(t, {}, strictServerOptions)
  app.get('/', async () => 'ok')
  const get = (headers: string, url = '/'): Promise<string> => exchange(app, `GET ${url} HTTP/1.1\r\nConnection: close\r\n${headers}\r\n`)

  t.match(await get('Host: a\r\nAuthorization: Bearer a\r\nX-Length-Of-4: a\r\nx-13-long-too: b\r\nAccept: a\r\nAccept: b\r\n'), /^HTTP\/1.1 200 /)
  t.match(await get('Host: a\r\nhost: b\r\n'), /^HTTP\/1.1 400 [^]*More than one host header/)
  t.match(await get('Host: a\r\nAuthorization: Bearer a\r\nAUTHORIZATION: Bearer a\r\n'), /^HTTP\/1.1 400 [^]*More than one authorization header/)
  t.match(await get('Host: a\r\nContent-Type: text/plain\r\nContent-Type: text/html\r\n'), /^HTTP\/1.1 400 [^]*More than one content-type header/)
  t.match(await get('Host: a\r\nHost: a\r\n', '/nowhere'), /^HTTP\/1.1 400 /, 'on a 404 too')
  t.match(await get(''), /^HTTP\/1.1 400 /, 'no Host')
  t.match(await get('Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n'), /^HTTP\/1.1 400 /, 'two lengths')
  t.match(await get(`Host: a\r\nX: ${'a'.repeat(17_000)}\r\n`), /^HTTP\/1.1 431 /)
  t.match(await get('Host: a\r\n', '/?q=\u00e9'), /^HTTP\/1.1 400 /, 'bytes in the URL that are not ASCII')
})

t.test('a body past the limit is a 413', async t => {
  const app = await build(t, {}, strictServerOptions)
  app.post('/', async () => 'ok')
  const size = strictServerOptions.bodyLimit
  t.equal((await app.inject({ method: 'POST', url: '/', headers: json, payload: `"${'a'.repeat(size - 2)}"` })).statusCode, 200)
  t.equal((await app.inject({ method: 'POST', url: '/', headers: json, payload: `"${'a'.repeat(size - 1)}"` })).statusCode, 413)
})

t.test('whoever dribbles a request or says nothing is disconnected', async t => {
  const quick = { ...strictServerOptions, http: { ...strictServerOptions.http, headersTimeout: 100, connectionsCheckingInterval: 20 } }
  const head = 'POST / HTTP/1.1\r\nHost: a\r\n'

  const headers = await build(t, {}, quick)
  t.match(await exchange(headers, head, 'X: a\r\n'), /^HTTP\/1.1 408 /)

  const body = await build(t, {}, { ...quick, requestTimeout: 150 })
  body.post('/', async () => 'ok')
  t.match(await exchange(body, `${head}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n`, ' '), /^HTTP\/1.1 408 /)

  const silent = await build(t, {}, { ...strictServerOptions, connectionTimeout: 100 })
  t.equal(await exchange(silent, head), '')
})

t.test('a server takes the options, and every one of them arrives', async t => {
  const { server } = await build(t, {}, strictServerOptions)
  t.match(server, { headersTimeout: 10_000, requestTimeout: 30_000, timeout: 60_000, keepAliveTimeout: 72_000, maxRequestsPerSocket: 10_000 })
})

t.test('only the context that asked, and those within it, are strict', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  const schema = { body: Type.Object({ n: Type.Integer() }) }
  const route = async (context: FastifyInstance): Promise<void> => { context.post('/', { schema }, async request => ({ body: request.body })) }
  await app.register(async strict => {
    await strict.register(strictInput)
    await route(strict)
    await strict.register(async child => {
      child.addSchema({ $id: 'own', type: 'object', properties: { n: { type: 'integer' } } })
      child.post('/', { schema: { body: Type.Ref('own') } }, async request => ({ body: request.body }))
      await child.register(route, { prefix: '/deeper' })
    }, { prefix: '/child' })
  }, { prefix: '/strict' })
  await app.register(route, { prefix: '/lenient' })

  for (const url of ['/strict', '/strict/child', '/strict/child/deeper']) {
    t.match(await post(app, '{"n":"7"}', json, url), { status: 400, message: 'body/n must be integer' }, url)
    t.match(await post(app, '{"n":7,"x":1}', json, url), { status: 400 }, url)
  }
  t.same((await post(app, '{"n":"7","n":"8","x":1}', json, '/lenient')).body, { n: 8, x: 1 })
})

t.test('registering it again is fine, and the inner options win', async t => {
  const app = await build(t)
  await app.register(strictInput)
  await app.register(async child => {
    await child.register(strictInput, { form: true })
    await child.register(strictInput, { form: true })
    child.post('/', { schema: { body: Type.Object({ a: Type.String() }) } }, async request => ({ body: request.body }))
  })
  t.same((await post(app, 'a=1', form)).body, { a: '1' })
  t.equal((await post(app, '{"a":"1","b":2}')).status, 400)
  t.equal((await post(app, '{"a":"1","a":"2"}')).status, 400)
})

t.test('it replaces a JSON parser that was there, and another one cannot replace it unnoticed', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  const lax = async (): Promise<unknown> => ({ lax: true })
  app.addContentTypeParser('application/json', { parseAs: 'string' }, lax)
  await app.register(strictInput)
  t.throws(() => app.addContentTypeParser('application/json', { parseAs: 'string' }, lax), { code: 'FST_ERR_CTP_ALREADY_PRESENT' })
  app.post('/', async request => ({ body: request.body }))
  t.same((await post(app, '{}')).body, {})
})

t.test('a database error that a value caused is the caller\'s, and no other is', async t => {
  const app = await build(t)
  app.setErrorHandler((error, _request, reply) => reply.send(asInputError(error)))
  const driver = (code: unknown): Error => Object.assign(new Error('invalid input syntax for type uuid: "secret"'), { code })
  app.get('/:code', async ({ params }) => { throw new Error('Failed query', { cause: driver((params as { code: string }).code) }) })

  for (const code of ['22021', '22P05', '22P02', '54001']) {
    const response = await app.inject(`/${code}`)
    t.match(response.json(), { statusCode: 400, code: 'FST_INPUT_REFUSED', message: new RegExp(code) })
    t.notMatch(response.body, /secret/)
  }
  t.equal((await app.inject('/23505')).statusCode, 500)

  t.match(asInputError(driver('22P02')), { critical: false, cause: undefined })
  const circle = new Error('circle')
  circle.cause = circle
  for (const other of [driver(22021), new Error('x', { cause: 'text' }), circle, 'text', null]) t.equal(asInputError(other), other)
})

t.test('keywords and formats of the host are added by an option', async t => {
  const app = await echo(t, Type.Object({ a: Type.String({ format: 'even' }) }, { 'x-owner': 'me' }), {
    ajv: ajv => { ajv.addKeyword('x-owner').addFormat('even', text => text.length % 2 === 0) }
  })
  t.equal((await post(app, '{"a":"ab"}')).status, 200)
  t.match(await post(app, '{"a":"abc"}'), { status: 400, message: 'body/a must match format "even"' })
})

t.test('a schema that is none is refused when the server starts', async t => {
  const app = await echo(t, { type: 'objekt' })
  await t.rejects(async () => app.ready(), { code: 'FST_ERR_SCH_VALIDATION_BUILD', message: /schema\/type/ })
})

t.test('fields are refused wherever a schema may stand', async t => {
  const held = { type: 'object', properties: { x: { type: 'integer' } } }
  const app = await echo(t, {
    $schema: 'http://json-schema.org/draft-07/schema#',
    type: ['object', 'null'],
    definitions: { box: { type: 'object', properties: { held } } },
    properties: { boxed: { $ref: '#/definitions/box' }, kind: {} },
    dependencies: { boxed: ['kind'], kind: true },
    if: { required: ['kind'] },
    then: { properties: { held } },
    else: false
  })
  t.equal((await post(app, '{"kind":1,"boxed":{"held":{"x":1}},"held":{"x":1}}')).status, 200)
  t.match(await post(app, '{"kind":1,"boxed":{"held":{"y":1}}}'), { status: 400, message: 'body/boxed/held has an unknown field y: remove it' })
  t.match(await post(app, '{"kind":1,"held":{"y":1}}'), { status: 400, message: 'body/held has an unknown field y: remove it' })
  t.match(await post(app, '{"boxed":{}}'), { status: 400 })
})

t.test('a schema that is true takes any body', async t => {
  t.same((await post(await echo(t, true), '{"a":1}')).body, { a: 1 })
})

t.test('options that are none are refused, and named', async t => {
  await t.rejects(build(t, { form: 'yes' } as unknown as StrictInputOptions), { code: 'FST_INPUT_OPTIONS', message: /form is "yes": Expected boolean/ })
  await t.rejects(build(t, { from: true } as unknown as StrictInputOptions), { code: 'FST_INPUT_OPTIONS', message: /from is true/ })
})
