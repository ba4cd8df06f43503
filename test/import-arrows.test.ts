import { ESLint } from 'eslint'
import t from 'tap'

// Through the configuration of the project, so that its wiring is proved too.
const eslint = new ESLint({ ruleFilter: ({ ruleId }) => ruleId === 'project/import-arrows' })

/** What the rule says of a file. */
async function faults (filePath: string, code: string): Promise<string[]> {
  const results = await eslint.lintText(code, { filePath })
  return results.flatMap(({ messages }) => messages.map(({ message }) => message))
}

t.test('imports that run the right way pass', async t => {
  for (const [file, ...specifiers] of [
    ['plugins/token-registry/registry.ts', './cache.ts', './memory-store/index.ts', 'fastify', 'node:crypto', '@sinclair/typebox/value'],
    ['plugins/token-registry/memory-store/index.ts', '../errors.ts', './entry.ts'],
    ['plugins/audit/index.ts', './log.ts', '../audit/log.ts', '../token-registry/index.ts', '../strict-input/index.ts', 'fastify-plugin'],
    ['plugins/audit/sinks/file.ts', '../log.ts', '../../token-registry/index.ts'],
    ['plugins/testing/ledger-contract/ledger.ts', './bench.ts', '../contract/index.ts', '../../audit/index.ts', '../../token-registry/index.ts', '../../strict-input/index.ts'],
    ['app/main.ts', './config.ts', 'fastify-token-registry', 'fastify-token-registry/audit'],
    ['app/admin/routes.ts', '../config.ts', '../users/users.ts'],
    ['examples/minimal.ts', './shared.ts', 'fastify-token-registry', 'fastify-token-registry-of-another', 'fastify']
  ] as const) {
    for (const specifier of specifiers) t.same(await faults(file, `import x from '${specifier}'`), [], `${file} → ${specifier}`)
  }
})

t.test('imports that run another way are refused, and told why', async t => {
  const onlyOwn = 'a plugin imports only its own files and plugins/token-registry/index.ts or plugins/strict-input/index.ts'
  const byPath = 'a plugin imports by path, not by the name of the package'
  const byName = 'use \'fastify-token-registry/…\', as a stranger would'
  for (const [file, home, specifier, why] of [
    ['plugins/token-registry/registry.ts', 'plugins/token-registry', '../audit/index.ts', 'token-registry imports no other plugin'],
    ['plugins/token-registry/memory-store/index.ts', 'plugins/token-registry', '../../audit/index.ts', 'token-registry imports no other plugin'],
    ['plugins/token-registry/registry.ts', 'plugins/token-registry', '../../app/config.ts', 'token-registry imports no other plugin'],
    ['plugins/token-registry/registry.ts', 'plugins/token-registry', 'fastify-token-registry/audit', byPath],
    ['plugins/audit/index.ts', 'plugins/audit', '../token-registry/registry.ts', onlyOwn],
    ['plugins/audit/index.ts', 'plugins/audit', '../token-registry', onlyOwn],
    ['plugins/audit/index.ts', 'plugins/audit', '../token-registry/memory-store/index.ts', onlyOwn],
    ['plugins/audit/index.ts', 'plugins/audit', './../audit/../token-registry/cache.ts', onlyOwn],
    ['plugins/audit/index.ts', 'plugins/audit', '../metrics/index.ts', onlyOwn],
    ['plugins/audit/index.ts', 'plugins/audit', '../audit-more/index.ts', onlyOwn],
    ['plugins/audit/index.ts', 'plugins/audit', '../../app/config.ts', onlyOwn],
    ['plugins/audit/index.ts', 'plugins/audit', '../../test/support/build.ts', onlyOwn],
    ['plugins/audit/index.ts', 'plugins/audit', 'fastify-token-registry', byPath],
    ['plugins/testing/index.ts', 'plugins/testing', '../audit/ledger.ts', `${onlyOwn} or plugins/audit/index.ts`],
    ['plugins/testing/index.ts', 'plugins/testing', '../redis-store/index.ts', `${onlyOwn} or plugins/audit/index.ts`],
    ['app/main.ts', 'app', '../plugins/token-registry/index.ts', byName],
    ['app/admin/routes.ts', 'app', '../../plugins/audit/index.ts', byName],
    ['app/main.ts', 'app', '../examples/minimal.ts', byName],
    ['examples/minimal.ts', 'examples', '../plugins/token-registry/index.ts', byName],
    ['examples/minimal.ts', 'examples', '../app/main.ts', byName]
  ] as const) {
    t.same(await faults(file, `import x from '${specifier}'`), [`${home} may not import ${specifier}: ${why}`], `${file} → ${specifier}`)
  }
})

t.test('every way to import is seen', async t => {
  const hole = '$' + '{name}'
  for (const code of [
    'import \'../metrics/index.ts\'',
    'import { a } from \'../metrics/index.ts\'',
    'import * as a from \'../metrics/index.ts\'',
    'import type { A } from \'../metrics/index.ts\'',
    'import { type A } from \'../metrics/index.ts\'',
    'export { a } from \'../metrics/index.ts\'',
    'export * from \'../metrics/index.ts\'',
    'export * as a from \'../metrics/index.ts\'',
    'export type { A } from \'../metrics/index.ts\'',
    'export type * from \'../metrics/index.ts\'',
    'const a = await import(\'../metrics/index.ts\')',
    'const a = await import(`../metrics/index.ts`)',
    `const a = await import(\`../metrics/${hole}.ts\`)`,
    'type A = import(\'../metrics/index.ts\').A',
    'type A = typeof import(\'../metrics/index.ts\')'
  ]) t.equal((await faults('plugins/audit/index.ts', code)).length, 1, code)

  t.same(await faults('plugins/audit/index.ts', `export const a = 1\nexport { a as b }\nconst c = await import(name)\nconst d = await import(\`${hole}.ts\`)`), [], 'what names no file')
})

t.test('tests import what they test', async t => {
  t.same(await faults('test/registry.test.ts', 'import x from \'../plugins/token-registry/cache.ts\''), [])
})
