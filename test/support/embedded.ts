import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { cp, mkdtemp, readFile, rename, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { openEmbedded } from '../../app/database/embedded.ts'
import { sourcePath } from '../../app/source-path.ts'

/** A logger that logs nothing. */
export const silent = { info () {}, warn () {} }

/**
 * A DATA_DIR that holds an empty embedded database, removed with the test.
 *
 * To make one takes seconds: it is made once for a version of PGlite, and copied.
 */
export async function embeddedDataDir (t: Test): Promise<string> {
  const directory = await temporaryDirectory(t)
  await cp(join(await template(), 'db'), join(directory, 'db'), { recursive: true })
  return directory
}

/** An empty directory, removed with the test. */
export async function temporaryDirectory (t: Test): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'data-'))
  t.teardown(() => rm(directory, { recursive: true, force: true }))
  return directory
}

async function template (): Promise<string> {
  const { version } = JSON.parse(await readFile(sourcePath('node_modules/@electric-sql/pglite/package.json'), 'utf8'))
  const made = sourcePath(`node_modules/.cache/pglite-${version}`)
  if (existsSync(made)) return made

  const draft = `${made}.${randomBytes(4).toString('hex')}`
  await (await openEmbedded(draft, silent)).close()
  // Where another test file was faster, its directory stays.
  await rename(draft, made).catch(() => rm(draft, { recursive: true, force: true }))
  return made
}
