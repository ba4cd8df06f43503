import { execFile } from 'node:child_process'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import { childEnv } from './support/child-env.ts'
import { redisServer } from './support/redis.ts'

const run = (program: string, args: string[], { cwd }: { cwd?: string } = {}) =>
  promisify(execFile)(program, args, { env: childEnv, ...cwd !== undefined && { cwd } })

/** A package in the version that this repository has. */
async function ours (name: string): Promise<string> {
  const { version } = JSON.parse(await readFile(`node_modules/${name}/package.json`, 'utf8')) as { version: string }
  return `${name}@${version}`
}

t.test('the packed package is sound, and works where nothing optional is installed', { timeout: 300_000 }, async t => {
  const directory = await mkdtemp(join(tmpdir(), 'package-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  // Lifecycle scripts are left out: `npm test` has built dist/ just before.
  const { stdout } = await run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', directory])
  const [{ filename, files }] = JSON.parse(stdout) as [{ filename: string, files: Array<{ path: string }> }]
  const tarball = join(directory, filename)
  const paths = files.map(({ path }) => path)
  t.ok(paths.includes('dist/plugins/token-registry/index.d.ts'))
  t.same(paths.filter(path => /^(app|dist\/app|test|bench|examples)\//.test(path)), [], 'nothing but plugins')

  await t.test('publint', async () => { await run('npx', ['publint', tarball, '--strict']) })
  await t.test('are the types wrong?', async () => { await run('npx', ['attw', tarball, '--profile', 'esm-only', '--format', 'ascii']) })

  /** Installs into a project that has nothing else. */
  const install = async (...packages: string[]) => await run('npm', ['install', '--prefer-offline', '--omit=optional', '--no-audit', '--no-fund', ...packages], { cwd: directory })
  await writeFile(join(directory, 'package.json'), '{ "private": true, "type": "module" }')
  await install(tarball, await ours('fastify'))
  const { dependencies, peerDependenciesMeta } = JSON.parse(await readFile('package.json', 'utf8')) as { dependencies: object, peerDependenciesMeta: object }
  const there = await readdir(join(directory, 'node_modules'), { recursive: true })
  for (const name of Object.keys(dependencies)) t.ok(there.includes(name), `${name} is there`)
  for (const name of Object.keys(peerDependenciesMeta)) t.notOk(there.includes(name), `${name} is optional, and not there`)

  await writeFile(join(directory, 'server.js'), `
    import Fastify from 'fastify'
    import tokenRegistry from 'fastify-token-registry'
    import strictInput from 'fastify-token-registry/strict-input'
    import { storeContract } from 'fastify-token-registry/testing'
    const app = Fastify()
    await app.register(strictInput)
    await app.register(tokenRegistry, { secret: 'kZ5mUq0b1Yw8oR3tXv6eHs9cLj2nPf4d' })
    app.get('/me', { config: { session: true } }, async request => request.requireAuth().session.sub)
    const { token } = await app.tokenRegistry.issue({ sub: 'ada' })
    const { body } = await app.inject({ url: '/me', headers: { authorization: 'Bearer ' + token } })
    await app.close()
    console.log(body, typeof storeContract)
  `)
  const { stdout: said } = await run(process.execPath, ['server.js'], { cwd: directory })
  t.equal(said.trim(), 'ada function')

  await writeFile(join(directory, 'types.ts'), `
    import Fastify from 'fastify'
    import tokenRegistry, { type SessionRecord } from 'fastify-token-registry'
    const app = Fastify()
    await app.register(tokenRegistry, { secret: 'x', cookie: true })
    app.get('/', { config: { session: { scope: 'a', optional: false } } }, async request => request.requireAuth().session.sub)
    // @ts-expect-error what a request carries cannot be changed
    app.get('/b', async request => { request.requireAuth().session.sub = 'b' })
    export const session: SessionRecord | null = await app.tokenRegistry.getById('x')
  `)
  await writeFile(join(directory, 'tsconfig.json'), '{ "compilerOptions": { "module": "NodeNext", "target": "ES2023", "strict": true, "noEmit": true, "skipLibCheck": false, "types": ["node"], "typeRoots": ["' + join(process.cwd(), 'node_modules/@types') + '"] }, "include": ["types.ts"] }')
  const { stdout: errors } = await run('npx', ['tsc', '-p', directory]).catch((error: { stdout: string }) => error)
  t.equal(errors, '')

  await install(await ours('@fastify/jwt'))
  await writeFile(join(directory, 'jwt.js'), `
    import fastifyJwt from '@fastify/jwt'
    import Fastify from 'fastify'
    import tokenRegistry from 'fastify-token-registry'
    import sessionJwt, { jwtKeys } from 'fastify-token-registry/session-jwt'
    const app = Fastify()
    await app.register(tokenRegistry, { secret: 'kZ5mUq0b1Yw8oR3tXv6eHs9cLj2nPf4d' })
    await app.register(fastifyJwt, jwtKeys({ secret: 'wT3nLk8sVq1zXy5bMr7cHd2fJp6gAe9u' }))
    await app.register(sessionJwt, { issuer: 'https://id.example', audience: 'api' })
    app.get('/me', { config: { session: true } }, async request => request.requireAuth().session.sub)
    const { session } = await app.tokenRegistry.issue({ sub: 'ada' })
    const { body } = await app.inject({ url: '/me', headers: { authorization: 'Bearer ' + app.sessionJwt.sign(session).token } })
    await app.close()
    console.log(body)
  `)
  t.equal((await run(process.execPath, ['jwt.js'], { cwd: directory })).stdout.trim(), 'ada')

  await install(await ours('ioredis'))
  const { url } = await redisServer(t)
  await writeFile(join(directory, 'redis.js'), `
    import Fastify from 'fastify'
    import tokenRegistry from 'fastify-token-registry'
    import redisStore from 'fastify-token-registry/redis-store'
    const app = Fastify()
    await app.register(redisStore, { url: '${url}' })
    await app.register(tokenRegistry, { secret: 'kZ5mUq0b1Yw8oR3tXv6eHs9cLj2nPf4d' })
    const { token } = await app.tokenRegistry.issue({ sub: 'ada' })
    console.log((await app.tokenRegistry.get(token)).sub, app.tokenStore.name)
    await app.close()
  `)
  t.equal((await run(process.execPath, ['redis.js'], { cwd: directory })).stdout.trim(), 'ada redis')
})
