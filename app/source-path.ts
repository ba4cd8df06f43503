import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'

/**
 * The path of a file that is not compiled to `dist/`: SQL, lists.
 *
 * @param path from the root of the package, as `app/database/migrations`
 */
export function sourcePath (path: string): string {
  for (let folder = import.meta.dirname; folder !== dirname(folder); folder = dirname(folder)) {
    if (existsSync(join(folder, 'package.json'))) return join(folder, path)
  }
  throw new Error(`${path} is not found: no folder above ${import.meta.dirname} holds package.json`)
}
