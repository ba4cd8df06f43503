import { readFile } from 'node:fs/promises'
import { Type, type Static } from '@sinclair/typebox'
import { Value } from '@sinclair/typebox/value'
import { sourcePath } from './source-path.ts'

const PackageInfo = Type.Object({ version: Type.String(), description: Type.String(), license: Type.String(), homepage: Type.String() })

/** What package.json says of this server. */
export async function packageInfo (): Promise<Static<typeof PackageInfo>> {
  return Value.Parse(PackageInfo, JSON.parse(await readFile(sourcePath('package.json'), 'utf8')))
}
