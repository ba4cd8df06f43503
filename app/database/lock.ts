import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, readdir, unlink } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { join, relative } from 'node:path'
import { DatabaseStart } from './errors.ts'

// macOS ends the path of a socket here, Linux 4 bytes later. Node cuts what is longer, without a word.
const longestPath = 103

/**
 * Takes a lock that one process at a time can hold, and that ends with it, however it ends.
 *
 * Each process that wants the lock listens on a socket of its own in the directory, then looks for others that answer. Of two that
 * come at the same time at least one sees the other, so two never hold it. The kernel answers for a holder that is busy and never for
 * one that is dead, in another container too, where the id of a process tells neither. Only machines that share the directory over a
 * network do not see each other.
 *
 * @returns gives the lock back
 * @throws {DatabaseStart} where another process holds the lock, or wants it at this moment
 */
export async function lock (directory: string): Promise<() => Promise<void>> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const name = `${process.pid}-${randomBytes(4).toString('hex')}`
  const own = socketPath(directory, name)
  const server = createServer(socket => socket.destroy()).unref()
  const release = async (): Promise<void> => {
    if (!server.listening) return
    server.close()
    await once(server, 'close')
  }
  server.listen(own)
  await once(server, 'listening')
  try {
    for (const other of await readdir(directory)) {
      if (other === name) continue
      const path = socketPath(directory, other)
      if (await answers(path)) refuse(`${directory} is locked by process ${other.split('-')[0]}: the embedded database serves one process, stop the other or set DATABASE_URL`)
      await unlink(path).catch(() => {})
    }
    // Between being made and listening a socket looks dead: another process may have removed it, and would not see its owner later.
    if (!existsSync(own)) refuse(`${directory} is wanted by several processes at once: start one`)
    return release
  } catch (error) {
    await release()
    throw error
  }
}

function socketPath (directory: string, name: string): string {
  const absolute = join(directory, name)
  const fromHere = relative('', absolute)
  const path = fromHere.length < absolute.length ? fromHere : absolute
  return Buffer.byteLength(path) <= longestPath ? path : refuse(`${directory} is too long for a socket in it, ${longestPath} bytes with its name: set DATA_DIR to a shorter path`)
}

async function answers (path: string): Promise<boolean> {
  const socket = connect(path)
  try {
    await once(socket, 'connect')
    return true
  } catch (error) {
    // Anything else, as a full backlog, comes from a process that lives.
    return !(error instanceof Error && 'code' in error && (error.code === 'ECONNREFUSED' || error.code === 'ENOENT'))
  } finally {
    socket.destroy()
  }
}

function refuse (why: string): never {
  throw new DatabaseStart(why)
}
