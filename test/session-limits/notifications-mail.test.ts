import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { notificationOf, notificationTypes, type Channel, type Notification, type NotificationDraft } from '../../plugins/session-limits/notifications/event.ts'
import { mailText } from '../../plugins/session-limits/notifications/mail-text.ts'
import { Notifications } from '../../plugins/session-limits/notifications/notifications.ts'
import { resolveNotificationOptions } from '../../plugins/session-limits/notifications/options.ts'
import { smtpChannel, type SmtpOptions } from '../../plugins/session-limits/notifications/smtp.ts'
import { childEnv } from '../support/child-env.ts'
import { soon } from '../support/deferred.ts'
import { hungServer, smtpServer } from '../support/smtp.ts'

const session = { id: 'session-1', client: null, issuedAt: 1, ipAddress: '203.0.113.7', userAgent: 'Firefox' }
const draft: NotificationDraft = {
  type: 'new-device',
  tenant: '',
  sub: 'alice',
  at: Date.UTC(2026, 1, 3, 4, 5, 6),
  session,
  device: { id: 'device-1', name: 'Firefox on Linux' },
  detail: {}
}

const sound: SmtpOptions = { url: 'smtp://127.0.0.1', from: 'us@example.org', to: () => 'kim@example.org' }

async function send (channel: Channel, given: Partial<NotificationDraft> = {}, signal = new AbortController().signal): Promise<void> {
  await soon(Promise.resolve(channel(notificationOf({ ...draft, ...given }, 0), { signal, attempt: 1 })))
}

t.test('a mail', async t => {
  t.test('is plain text in English, to the one address that is found for the notification', async t => {
    const server = await smtpServer(t)
    const asked: Notification[] = []
    const to = async (notification: Notification): Promise<string> => {
      asked.push(notification)
      return `${notification.sub}@example.org`
    }
    await send(smtpChannel({ url: server.url, from: 'Us, the people <us@example.org>', to }))
    t.match(asked, [{ sub: 'alice', type: 'new-device' }])
    const [mail] = server.mails
    t.strictSame(mail?.to, ['alice@example.org'])
    for (const line of [/^From: "Us, the people" <us@example\.org>$/m, /^To: alice@example\.org$/m, /^Subject: New sign-in to your account$/m, /^Auto-Submitted: auto-generated$/m, /^Content-Type: text\/plain/m]) t.match(mail?.content, line)
    t.match(mail?.content, /\nTime: 2026-02-03 04:05 UTC\nDevice: "Firefox on Linux"\nIP address: 203\.0\.113\.7\n/)
  })

  t.test('says what happened, for each type, with what is known', async t => {
    const subjects = new Set<string>()
    for (const type of notificationTypes) {
      const { subject, text } = mailText(notificationOf({ ...draft, type }, 0))
      subjects.add(subject)
      t.match(text, /^[A-Z][^\n]+\.\n\nTime: 2026-02-03 04:05 UTC\nDevice: "Firefox on Linux"\nIP address: 203\.0\.113\.7\n\n[A-Z][^\n]+\.\n$/, type)
      t.match(mailText(notificationOf({ ...draft, type, session: null, device: null }, 0)).text, /\nTime: [^\n]+\n\n/)
    }
    t.equal(subjects.size, notificationTypes.length)
    t.match(mailText(notificationOf({ ...draft, device: null, session: { ...session, ipAddress: null } }, 0)).text, /\nTime: [^\n]+\n\n/)
  })

  t.test('shows of what a user or browser chose one short line', async t => {
    const name = `Phone"\r\n\r\nCall \u202e0800\u2028now\0 ${'\u{1F98A}'.repeat(100)}`
    const { text } = mailText(notificationOf({ ...draft, device: { id: 'x', name } }, 0))
    const [, shown = ''] = /^Device: "(.*)"$/m.exec(text) ?? []
    t.match(shown, /^Phone" Call 0800 now \u{1F98A}+$/u)
    t.equal([...shown].length, 80)
  })

  t.test('says what the option makes of it, and no line of that becomes a header', async t => {
    const server = await smtpServer(t)
    await send(smtpChannel({ ...sound, url: server.url, text: ({ sub }) => ({ subject: `Hi ${sub}\r\nBcc: eve@example.org\0`, text: '.\r\nGr\u00FC\u00DFe' }) }))
    const [mail] = server.mails
    t.strictSame(mail?.to, ['kim@example.org'])
    t.match(mail?.content, /^Subject: Hi alice Bcc: eve@example\.org$/m)
    t.notMatch(mail?.content, /^Bcc:/m)
  })

  t.test('is not sent where there is no address, or none that is one', async t => {
    const server = await smtpServer(t)
    await send(smtpChannel({ ...sound, url: server.url, to: async () => null }))
    const wrong = ['', 'kim', 'kim@', '.kim@example.org', 'kim@example..org', 'kim@example.org, eve@example.org', 'kim@example.org\r\nBcc: eve@example.org', 'Kim <kim@example.org>', 'kim@example.org\0', 'kim\u202e@example.org', `${'x'.repeat(250)}@example.org`]
    for (const to of wrong) await t.rejects(send(smtpChannel({ ...sound, url: server.url, to: () => to })), { name: 'Undeliverable', message: 'what "to" gave is not one mail address' })
    t.equal(server.asked, 0)
    t.equal(server.connections.size, 0)
  })
})

t.test('a mail server', async t => {
  t.test('that is busy is asked again, one that refuses is not, and no message quotes the mail or the URL', async t => {
    let answer = '451 later, kim@example.org'
    const server = await smtpServer(t, () => answer)
    const channel = smtpChannel({ ...sound, url: server.url.replace('//', '//kim:hunter2@') })
    await t.rejects(send(channel), { name: 'Error', message: 'the mail server did not take it: EENVELOPE 451' })
    answer = '550 <kim@example.org> is not here'
    await t.rejects(send(channel), { name: 'Undeliverable', message: 'the mail server did not take it: EENVELOPE 550' })
    await t.rejects(send(smtpChannel({ ...sound, url: 'smtp://kim:hunter2@127.0.0.1:1' })), { name: 'Error', message: 'the mail server did not take it: ESOCKET' })
  })

  t.test('that hangs is given up, its connection too, which it need not close', async t => {
    const hung = createServer({ allowHalfOpen: true }, socket => { socket.write('220 ready\r\n') }).listen(0, '127.0.0.1')
    t.teardown(() => hung.close())
    await once(hung, 'listening')
    const sockets = () => process.getActiveResourcesInfo().filter(name => name === 'TCPSocketWrap').length
    while (sockets() > 0) await setImmediate()
    const controller = new AbortController()
    const address = hung.address()
    const sending = send(smtpChannel({ ...sound, url: `smtp://127.0.0.1:${typeof address === 'object' ? address?.port : address}` }), {}, controller.signal)
    const [socket] = await once(hung, 'connection')
    t.teardown(() => socket.destroy())
    await once(socket, 'data') // EHLO
    socket.write('250 ok\r\n')
    await once(socket, 'data') // MAIL FROM
    const start = performance.now()
    controller.abort()
    await t.rejects(sending, { name: 'Error', message: /the mail server did not take it/ })
    while (sockets() > 1) await setImmediate()
    t.ok(performance.now() - start < 3000, 'only that of the server is left')
  })

  t.test('gets a connection for each mail, at most four at once, and none is left', async t => {
    const server = await smtpServer(t)
    const notifications = notificationsBy(t, smtpChannel({ ...sound, url: server.url }))
    for (let i = 0; i < 20; i++) notifications.notify({ ...draft, sub: `user-${i}` })
    let most = 0
    while (server.mails.length < 20) {
      most = Math.max(most, server.connections.size)
      await setImmediate()
    }
    await notifications.close()
    t.match(notifications.stats, { sent: 20, failed: 0 })
    t.ok(most <= 8, 'four, and what is closing')
    while (server.connections.size > 0) await setImmediate()
  })

  t.test('that hangs does not hold closing up', async t => {
    const notifications = notificationsBy(t, smtpChannel({ ...sound, url: await hungServer(t) }))
    for (let i = 0; i < 5; i++) notifications.notify({ ...draft, sub: `user-${i}` })
    await setImmediate()
    const start = performance.now()
    await notifications.close()
    t.ok(performance.now() - start < 2000)
    t.match(notifications.stats, { queued: 0, failed: 4, dropped: 1 })
  })

  function notificationsBy (t: Test, channel: Channel): Notifications {
    const notifications = new Notifications(resolveNotificationOptions({ channels: [channel], flush: 100 }), { mark: async () => true, now: Date.now, log: () => {} })
    t.teardown(() => notifications.close())
    return notifications
  }
})

t.test('options are checked, and no message shows the URL', async t => {
  const faults: Array<[Record<string, unknown>, RegExp]> = [
    [{ url: undefined }, /smtpChannel\.url is not what it may be: smtp\[s\]:\/\/\[user:password@\]host\[:port\]$/],
    [{ url: 'hunter2' }, /smtpChannel\.url is not what it may be/],
    [{ url: 'https://kim:hunter2@example.org' }, /smtpChannel\.url is not what it may be/],
    [{ url: 'smtp:hunter2' }, /smtpChannel\.url is not what it may be/],
    [{ from: 5 }, /smtpChannel\.from is 5: it may be an address, or "Name <address>"$/],
    [{ to: 'kim@example.org' }, /smtpChannel\.to is 'kim@example\.org': it may be a function that gives an address, or null$/],
    [{ text: 'x' }, /smtpChannel\.text is 'x': it may be a function that gives \{ subject, text \}$/],
    [{ user: 'hunter2' }, /smtpChannel\.user is not an option: there are url, from, to, text$/]
  ]
  for (const from of ['', 'us', 'us@example.org\r\nBcc: eve@example.org', 'Us\r\nBcc: eve@example.org <us@example.org>', 'us@example.org, eve@example.org', 'Us <us@example.org>, Eve <eve@example.org>', '<us@example.org>', 'Us <us>']) {
    faults.push([{ from }, /smtpChannel\.from is not what it may be: an address, or "Name <address>"$/])
  }
  for (const [given, message] of faults) {
    const make = () => smtpChannel({ ...sound, ...given } as SmtpOptions)
    t.throws(make, { code: 'FST_SESSION_LIMITS_OPTIONS', statusCode: 500, message }, JSON.stringify(given))
    try { make() } catch (error) { t.notMatch(String(error), /hunter2/) }
  }
  t.doesNotThrow(() => smtpChannel({ ...sound, url: 'smtps://kim:hunter2@mail.example.org:465?requireTLS=true' }))
})

t.test('nodemailer is loaded by who sends mail alone, and missed at start', async t => {
  const here = new URL('../../plugins/session-limits/notifications/', import.meta.url)
  const script = `
    import { createRequire, syncBuiltinESMExports } from 'node:module'
    import module from 'node:module'
    const resolve = module._resolveFilename
    module._resolveFilename = (name, ...rest) => resolve(name === 'nodemailer' ? 'nodemailer-that-is-missing' : name, ...rest)
    const { smtpChannel } = await import(${JSON.stringify(new URL('smtp.ts', here).href)})
    try {
      smtpChannel({ url: 'smtp://127.0.0.1', from: 'us@example.org', to: () => null })
    } catch (error) {
      console.log(error.code)
    }`
  const said = execFileSync(process.execPath, ['--import', 'tsx', '--conditions=@fastify-token-registry/source', '--input-type=module', '--eval', script], { encoding: 'utf8', cwd: new URL('../..', import.meta.url), env: childEnv })
  t.equal(said, 'MODULE_NOT_FOUND\n')
})
