import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { inspect } from 'node:util'
import * as bcrypt from '@node-rs/bcrypt'
import t, { type Test } from 'tap'
import { createMailer, type MailLimits, type Mailer } from '../../app/mail/mailer.ts'
import { createPasswords } from '../../app/passwords/passwords.ts'
import { checkPassword } from '../../app/passwords/policy.ts'
import { temporaryDirectory } from '../support/embedded.ts'
import { hungServer, smtpServer } from '../support/smtp.ts'

t.test('passwords', async t => {
  const passwords = await createPasswords()
  const right = { matches: true, needsRehash: false }
  const older = { matches: true, needsRehash: true }
  const wrong = { matches: false, needsRehash: false }

  t.test('a hash is argon2id of 19 MiB and 2 passes, never the same twice, and knows its password', async t => {
    const hash = await passwords.hash('correct horse')
    t.match(hash, /^\$argon2id\$v=19\$m=19456,t=2,p=1\$/)
    t.not(await passwords.hash('correct horse'), hash)
    t.strictSame(await passwords.verify(hash, 'correct horse'), right)
    t.strictSame(await passwords.verify(hash, 'correct horse '), wrong)
  })

  t.test('8 to 128 characters, whatever they are, and none of the most common ones', async t => {
    for (const good of ['8 chars.', '\u{1F511}'.repeat(8), 'x'.repeat(128), '\u{1F511}'.repeat(128)]) t.doesNotThrow(() => checkPassword(good))
    const bad = { fewer: ['', '7 chars', '\u{1F511}'.repeat(7)], more: ['x'.repeat(129)], common: ['password', '12345678', 'Password1', 'QWERTY123', 'iloveyou1', '1q2w3e4r5t', 'ｐａｓｓｗｏｒｄ'] }
    for (const [why, all] of Object.entries(bad)) {
      for (const password of all) t.throws(() => checkPassword(password), { code: 'APP_PASSWORD_REFUSED', statusCode: 400, message: new RegExp(why) })
    }
  })

  t.test('every way to write a character is the same password', async t => {
    t.strictSame(await passwords.verify(await passwords.hash('Gru\u0308\u00DFe aus Ko\u0308ln'), 'Gr\u00FC\u00DFe aus K\u00F6ln'), right)
  })

  t.test('bcrypt hashes of an older system verify, and are to be made anew', async t => {
    const hashes = [
      '$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW',
      '$2y$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW',
      await bcrypt.hash('U*U', 4)
    ]
    for (const hash of hashes) {
      t.strictSame(await passwords.verify(hash, 'U*U'), older)
      t.strictSame(await passwords.verify(hash, 'U*V'), wrong)
    }
  })

  t.test('published argon2 hashes verify; weaker ones are to be made anew', async t => {
    const vectors = '../shared/vectors/argon2id.json'
    const few = [
      { password: 'password', encoded: '$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4' },
      { password: 'password', encoded: '$argon2id$v=19$m=256,t=2,p=2$c29tZXNhbHQ$bQk8UB/VmZZF4Oo79iDXuL5/0ttZwg2f/5U52iv1cDc' },
      { password: 'password', encoded: '$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc' }
    ]
    const all: typeof few = existsSync(vectors) ? [...few, ...JSON.parse(readFileSync(vectors, 'utf8')).phc] : few
    for (const { password, encoded } of all) {
      const weaker = /m=256,|t=1,/.test(encoded)
      t.strictSame(await passwords.verify(encoded, password), weaker ? older : right, encoded)
      t.strictSame(await passwords.verify(encoded, `${password}!`), wrong)
    }
    t.strictSame(await passwords.verify('$argon2i$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$wWKIMhR9lyDFvRz9YTZweHKfbftvj+qf+YFY4NeBbtA', 'password'), older)
  })

  t.test('what is no hash matches nothing', async t => {
    for (const hash of [null, '', 'x', 'password', '$argon2id$', '$2b$10$short', '$argon2id$v=19$m=19456,t=2,p=1$$']) {
      t.strictSame(await passwords.verify(hash, 'password'), wrong)
    }
  })

  t.test('no user, a wrong password and a weak hash take the same time', async t => {
    const weak = '$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4'
    const paths = [null, await passwords.hash('right'), weak, await bcrypt.hash('right', 4), 'no hash']
    const times = paths.map((): number[] => [])
    for (let i = 0; i < 15; i++) {
      for (const [j, hash] of paths.entries()) {
        const start = performance.now()
        await passwords.verify(hash, 'not right')
        times[j]?.push(performance.now() - start)
      }
    }
    const [unknown = 0, ...others] = times.map(all => all.sort((a, b) => a - b)[7] ?? 0)
    for (const time of others) t.ok(time / unknown > 0.6 && time / unknown < 1.7, `${time} ms, and ${unknown} ms for nobody`)
  })

  t.test('who finds neither place nor queue is told to retry; the others are served', async t => {
    const narrow = await createPasswords({ places: 1, queueLength: 2 })
    const all = await Promise.allSettled(Array.from({ length: 10 }, () => narrow.verify(null, 'password')))
    t.equal(all.filter(result => result.status === 'fulfilled').length, 3)
    t.match(all.at(-1), { reason: { code: 'APP_PASSWORDS_BUSY', statusCode: 503, headers: { 'retry-after': '1' } } })
    t.strictSame(await narrow.verify(null, 'password'), wrong, 'every place came back')
  })
})

t.test('mail', async t => {
  const mail = { to: 'kim@example.org', subject: 'Your password', text: 'tro_secret' }

  async function mailerOf (t: Test, smtpUrl: string | null, limits: Partial<MailLimits> = {}): Promise<{ mailer: Mailer, dataDir: string, log: unknown[] }> {
    const log: unknown[] = []
    const dataDir = await temporaryDirectory(t)
    const mailer = createMailer({ mail: { smtpUrl, from: 'Us <us@example.org>' }, dataDir }, { error: (...all: unknown[]) => { log.push(all) } }, { pause: 1, timeout: 1000, ...limits })
    t.teardown(() => mailer.close())
    return { mailer, dataDir, log }
  }

  async function until (holds: () => boolean): Promise<void> {
    while (!holds()) await setImmediate()
  }

  function outboxOf (dataDir: string): string[] {
    const outbox = join(dataDir, 'outbox')
    return existsSync(outbox) ? readdirSync(outbox).filter(name => name.endsWith('.txt')) : []
  }

  t.test('without a server mails are files, which only the user of the server can read', async t => {
    const { mailer, dataDir } = await mailerOf(t, null)
    for (let i = 0; i < 3; i++) mailer.send({ ...mail, text: `${mail.text}${i}` })
    t.notOk(existsSync(join(dataDir, 'outbox')), 'nothing is done before the request that sends goes on')
    await until(() => outboxOf(dataDir).length === 3)

    const outbox = join(dataDir, 'outbox')
    const names = outboxOf(dataDir)
    t.equal(statSync(outbox).mode & 0o777, 0o700)
    for (const name of names) t.equal(statSync(join(outbox, name)).mode & 0o777, 0o600)
    for (const name of names) t.match(name, /^[\dTZ.-]+-[\da-f]{24}\.txt$/)
    const texts = names.map(name => readFileSync(join(outbox, name), 'utf8'))
    t.strictSame(texts.sort(), [0, 1, 2].map(i => `From: Us <us@example.org>\nTo: kim@example.org\nSubject: Your password\n\ntro_secret${i}\n`))
  })

  t.test('the outbox keeps the newest', async t => {
    const { mailer, dataDir } = await mailerOf(t, null, { kept: 2 })
    mkdirSync(join(dataDir, 'outbox'))
    for (const name of ['2001-01-01T00-00-00.000Z-a.txt', '2001-01-01T00-00-00.000Z-b.txt', '9999-01-01T00-00-00.000Z-c.txt']) writeFileSync(join(dataDir, 'outbox', name), '')
    mailer.send(mail)
    await until(() => outboxOf(dataDir).length === 2)
    t.match(outboxOf(dataDir), [/^2\d{3}-.*-[\da-f]{24}\.txt$/, /-c\.txt$/])
  })

  t.test('with a server mails go there, to one recipient, with one subject', async t => {
    const server = await smtpServer(t)
    const { mailer } = await mailerOf(t, server.url)
    mailer.send({ to: 'kim@example.org', subject: 'Gr\u00FC\u00DFe', text: 'tro_secret' })
    mailer.send(mail)
    await until(() => server.mails.length === 2)
    t.strictSame(server.mails.map(({ to }) => to), [['kim@example.org'], ['kim@example.org']])
    const [greeting] = server.mails
    t.match(greeting?.content, /^To: kim@example\.org$/m)
    t.match(greeting?.content, /^From: Us <us@example\.org>$/m)
    t.match(greeting?.content, /^Subject: =\?UTF-8\?/m)
    t.match(greeting?.content, /\n\ntro_secret/)
  })

  t.test('what would add a recipient or a header is refused', async t => {
    const { mailer, dataDir } = await mailerOf(t, null)
    for (const to of ['', 'kim', 'kim@', '.kim@example.org', 'kim@example..org', 'kim@example.org, eve@example.org', 'kim@example.org\r\nBcc: eve@example.org', 'Kim <kim@example.org>', 'kim@example.org\0', `${'x'.repeat(250)}@example.org`]) {
      t.throws(() => mailer.send({ ...mail, to }), { code: 'APP_MAIL_REFUSED', statusCode: 400 })
    }
    for (const subject of ['Hi\r\nBcc: eve@example.org', 'Hi\nthere', 'Hi\0']) t.throws(() => mailer.send({ ...mail, subject }), { code: 'APP_MAIL_REFUSED' })
    await mailer.close()
    t.strictSame(outboxOf(dataDir), [])
  })

  t.test('a server that is busy is asked again, one that refuses is not', async t => {
    const server = await smtpServer(t, to => {
      if (to.startsWith('nobody')) return '550 <nobody@example.org> is not here'
      return server.asked < 4 ? '451 later' : '250 ok'
    })
    const { mailer, log } = await mailerOf(t, server.url)
    mailer.send(mail)
    await until(() => server.mails.length === 1)
    mailer.send({ ...mail, to: 'nobody@example.org' })
    await until(() => log.length === 1)
    t.equal(server.asked, 5)
    t.match(log, [[{ err: { message: /^the mail was not taken: EENVELOPE 550$/ }, attempt: 1 }]])
    t.notMatch(inspect(log), /nobody|secret/, 'neither whom it was for nor what it says is logged')
  })

  t.test('a mail that somebody waits for is tried once, takes no place in the queue, and is given up when told', async t => {
    const server = await smtpServer(t, to => to.startsWith('nobody') ? '550 <nobody@example.org> is not here' : server.asked < 2 ? '451 later, kim@example.org' : '250 ok')
    const { mailer, log } = await mailerOf(t, server.url, { waiting: 0 })
    const signal = new AbortController().signal
    await t.rejects(mailer.deliver(mail, signal), { name: 'Error', message: /^the mail was not taken: EENVELOPE 451$/ })
    await mailer.deliver(mail, signal)
    t.equal(server.mails.length, 1)
    await t.rejects(mailer.deliver({ ...mail, to: 'nobody@example.org' }, signal), { name: 'Undeliverable', message: /^the mail was not taken: EENVELOPE 550$/ })
    await t.rejects(mailer.deliver({ ...mail, to: 'kim' }, signal), { code: 'APP_MAIL_REFUSED' })

    const { mailer: hung } = await mailerOf(t, await hungServer(t), { timeout: 60_000 })
    await t.rejects(hung.deliver(mail, AbortSignal.timeout(20)), { message: /EABORT/ })
    t.strictSame(log, [])
  })

  t.test('a server that hangs delays nobody, is given up, and its queue has an end', async t => {
    const { mailer, log } = await mailerOf(t, await hungServer(t), { waiting: 20, attempts: 2, timeout: 50 })
    const start = performance.now()
    for (let i = 0; i < 25; i++) mailer.send(mail)
    t.ok(performance.now() - start < 50)
    t.equal(log.length, 5, 'those beyond 20 were dropped')
    await until(() => log.length === 25)
    t.match(log.slice(5), Array.from({ length: 20 }, () => [{ attempt: 2 }]))
    t.notMatch(inspect(log), /kim|secret/)
  })

  t.test('closing gives what waits for its next attempt a last one', async t => {
    let busy = true
    const server = await smtpServer(t, () => busy ? '451 later' : '250 ok')
    const { mailer, log } = await mailerOf(t, server.url, { pause: 3_600_000 })
    for (let i = 0; i < 20; i++) mailer.send(mail)
    while (server.asked < 20) await setImmediate()
    busy = false
    await mailer.close()
    t.equal(server.mails.length, 20)
    t.strictSame(log, [])
    mailer.send(mail)
    t.match(log, [[/dropped/]], 'closed, it takes no more')
    while (server.connections.size > 0) await setImmediate()
  })

  t.test('closing does not wait for a server that hangs', async t => {
    const { mailer, log } = await mailerOf(t, await hungServer(t), { timeout: 60_000, flush: 50 })
    for (let i = 0; i < 5; i++) mailer.send(mail)
    await mailer.close()
    t.equal(log.length, 5)
  })

  t.test('a directory that cannot be written is told in the log', async t => {
    const { mailer, dataDir, log } = await mailerOf(t, null)
    writeFileSync(join(dataDir, 'outbox'), '')
    mailer.send(mail)
    await until(() => log.length > 0)
    t.match(log, [[{ err: { message: /EEXIST/ }, attempt: 6 }]])
  })
})
