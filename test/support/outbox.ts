import { once } from 'node:events'
import { watch } from 'node:fs'
import { mkdir, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'

/** The mail to an address in the outbox of a server. Waits for it: mails are written after the answer. */
export async function mailTo (dataDir: string, address: string): Promise<string> {
  const outbox = join(dataDir, 'outbox')
  await mkdir(outbox, { recursive: true })
  const watcher = watch(outbox)
  try {
    for (;;) {
      const change = once(watcher, 'change')
      const names = (await readdir(outbox)).filter(file => file.endsWith('.txt'))
      const mails = await Promise.all(names.map(name => readFile(join(outbox, name), 'utf8')))
      const mail = mails.find(mail => mail.includes(`\nTo: ${address}\n`))
      if (mail !== undefined) return mail
      await change
    }
  } finally {
    watcher.close()
  }
}
