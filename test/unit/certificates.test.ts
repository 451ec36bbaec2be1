/** An unfit certificate is named with the reason, the place and the remedy, in time and only once. */

import { test } from 'tap'
import {
  judgeAuthorities,
  judgeServerCertificate,
  readCertificates,
} from '@openclaw-k8s/auth-sidecar/lib/certificates.ts'
import {
  CertificateWatch,
  type CertificateFile,
} from '@openclaw-k8s/auth-sidecar/edge/certificate-watch.ts'
import { createLog } from '@openclaw-k8s/auth-sidecar/observe/log.ts'
import { createAuthority } from '../kit/authority.ts'
import { FakeClock } from '../kit/fake-clock.ts'

const DAY_MS = 86_400_000
const NOW = Date.UTC(2030, 0, 15)
const at = (days: number) => new Date(NOW + days * DAY_MS)
const lasting = (from: number, to: number) => ({ notBefore: at(from), notAfter: at(to) })
const ALWAYS = lasting(-3000, 3000)

const authority = await createAuthority('test', ALWAYS)
const issue = async (from: number, to: number, more: { usage?: 'client'; hosts?: string[] } = {}) =>
  authority.issue({
    commonName: 'sidecar',
    hosts: ['gateway.openclaw.svc', '10.0.0.1'],
    ...lasting(from, to),
    ...more,
  })

const read = (pem: string) => readCertificates(pem) ?? []
const reasons = (pem: string, names: readonly string[] = [], nowMs = NOW) =>
  judgeServerCertificate(read(pem), names, nowMs)?.faults.map(({ reason }) => reason)

test('a certificate is fit from its first to its last moment, and says when it is not', async (t) => {
  const { cert } = await issue(-10, 10)
  t.strictSame(reasons(cert), [])
  const before = 'The certificate of CN=sidecar is not valid before 2030-01-05T00:00:00Z.'
  const after = 'The certificate of CN=sidecar expired at 2030-01-25T00:00:00Z.'
  t.strictSame(reasons(cert, [], at(-10).getTime() - 1), [before])
  t.strictSame(reasons(cert, [], at(-10).getTime()), [])
  t.strictSame(reasons(cert, [], at(10).getTime() - 1), [])
  t.strictSame(reasons(cert, [], at(10).getTime()), [after])
})

test('a certificate must be for servers, and for every name that workers use', async (t) => {
  const { cert } = await issue(-10, 10)
  t.strictSame(reasons(cert, ['gateway.openclaw.svc', '10.0.0.1']), [])
  t.match(reasons(cert, ['gateway', '10.0.0.1', '10.0.0.2']), [
    /not for gateway, 10\.0\.0\.2; it has DNS:gateway\.openclaw\.svc, IP Address:10\.0\.0\.1\.$/,
  ])
  const forClients = await issue(-10, 10, { usage: 'client' })
  t.match(reasons(forClients.cert), [/not for servers: .* lacks serverAuth/])
  const wild = await issue(-10, 10, { hosts: ['*.openclaw.svc'] })
  t.strictSame(reasons(wild.cert, ['gateway.openclaw.svc']), [])
})

test('a chain lasts as long as its shortest link, and what is not in it does not count', async (t) => {
  const [short, later] = [
    await authority.subordinate('short', lasting(-10, 5)),
    await authority.subordinate('later', lasting(1, 20)),
  ]
  const stranger = await createAuthority('stranger', lasting(-10, -5))
  const leaf = await short.issue({ commonName: 'sidecar', ...lasting(-10, 10) })
  const state = (pem: string) => judgeServerCertificate(read(pem), [], at(6).getTime())
  const chain = `${leaf.cert}\n${short.cert}\n${authority.cert}`
  t.match(state(chain), { notAfter: at(5).getTime(), notBefore: at(-10).getTime() })
  t.match(state(chain)?.faults, [{ reason: /CN=short expired at 2030-01-20/ }])
  t.match(state(`${leaf.cert}\n${stranger.cert}`)?.faults, [], 'a certificate of nobody in it')
  const young = await later.issue({ commonName: 'sidecar', ...lasting(-10, 10) })
  t.match(reasons(`${young.cert}\n${later.cert}`), [/CN=later is not valid before 2030-01-16/])
})

test('fitness is about names and use, not about dates', async (t) => {
  const isFit = (pem: string, names: readonly string[] = []) =>
    judgeServerCertificate(read(pem), names, NOW)?.isFit
  const expired = (await issue(-10, -1)).cert
  t.equal(isFit(expired, ['gateway.openclaw.svc']), true)
  t.equal(isFit(expired, ['elsewhere.example']), false)
  t.equal(isFit((await issue(-10, 10, { usage: 'client' })).cert), false)
  t.equal(judgeAuthorities(read(authority.cert), NOW)?.isFit, undefined, 'CAs have no names')
})

test('a CA that ends before another of its file is a rotation: no fault, and no warning', async (t) => {
  const past = await createAuthority('past', lasting(-20, -1))
  const ending = await createAuthority('ending', lasting(-300, 2))
  const next = await createAuthority('next', lasting(-2, 30))
  const future = await createAuthority('future', lasting(1, 60))
  const judge = (...all: readonly { cert: string }[]) =>
    judgeAuthorities(read(all.map(({ cert }) => cert).join('\n')), NOW)
  const good = { faults: [], notBefore: at(-2).getTime(), notAfter: at(30).getTime() }
  t.match(judge(past, next), { ...good, isEndingSoon: false })
  t.match(judge(ending, next), { ...good, isEndingSoon: false })
  t.match(judge(next, ending, past), { ...good, isEndingSoon: false })
  const last = { faults: [], notAfter: at(2).getTime(), isEndingSoon: true }
  t.match(judge(ending), last, 'none follows it')
  t.match(judge(past, ending), last)
  t.match(judge(ending, future), last, 'the next one cannot be relied on yet')
  t.match(judgeAuthorities(read(past.cert), NOW), {
    faults: [{ reason: 'The certificate of CN=past expired at 2030-01-14T00:00:00Z.' }],
  })
})

test('a certificate ends soon once a renewal is overdue, whatever its lifetime', async (t) => {
  const isEndingSoon = async (from: number, to: number) =>
    judgeServerCertificate(read((await issue(from, to)).cert), [], NOW)?.isEndingSoon
  t.equal(await isEndingSoon(-75, 15), false, 'of 90 days there are 15 left')
  t.equal(await isEndingSoon(-77, 13), true, 'of 90 days there are 13 left')
  t.equal(await isEndingSoon(-0.7, 0.3), false, 'of a day there is a third left')
  t.equal(await isEndingSoon(-0.9, 0.1), true, 'of a day there is a tenth left')
  t.equal(await isEndingSoon(-10, -1), false, 'it has ended')
})

test('what holds no certificate has no dates', async (t) => {
  t.equal(judgeServerCertificate(read('nonsense'), [], NOW), undefined)
  t.equal(judgeAuthorities(read(''), NOW), undefined)
})

const watch = (startMs: number, serverNames: readonly string[] = []) => {
  const clock = new FakeClock(startMs)
  const lines: { level: string; msg: string; file: string; reason?: string }[] = []
  const certificates = new CertificateWatch({
    files: {
      certFile: 'tls.crt',
      keyFile: 'tls.key',
      clientCaFile: 'ca.crt',
      serverNames,
      minVersion: 'TLSv1.3',
    },
    clock,
    log: createLog('trace', {
      write: (line) => void lines.push(JSON.parse(line) as (typeof lines)[number]),
    }),
  })
  const dates = () => new Map<CertificateFile, object>(certificates.states())
  const said = () => lines.splice(0).map(({ level, msg }) => `${level}: ${msg}`)
  return { clock, certificates, dates, lines, said }
}

test('each change of a certificate is logged once: valid, ending, expired, renewed', async (t) => {
  const { clock, certificates, said, lines, dates } = watch(NOW)
  const pem = { key: '', minVersion: 'TLSv1.3' } as const
  certificates.use({ ...pem, cert: (await issue(-80, 20)).cert, ca: authority.cert })
  t.strictSame(said(), [
    'info: the certificate of the worker port is valid',
    'info: the CA of client certificates is valid',
  ])
  t.match(dates().get('certificate'), { notAfter: at(20).getTime() })
  clock.advance(5 * DAY_MS)
  t.strictSame(said(), [])
  clock.advance(2 * DAY_MS)
  t.strictSame(said(), [
    'warn: the certificate of the worker port expires soon and was not renewed',
  ])
  clock.advance(13 * DAY_MS)
  t.match(lines, [
    {
      level: 'error',
      file: 'tls.crt',
      reason: 'The certificate of CN=sidecar expired at 2030-02-04T00:00:00Z.',
      hint: /^Renew/,
    },
  ])
  t.strictSame(said(), [
    'error: the certificate of the worker port is not good: workers cannot connect',
  ])
  certificates.use({ ...pem, cert: (await issue(19, 100)).cert, ca: authority.cert })
  t.strictSame(said(), ['info: the certificate of the worker port is valid'])
  clock.advance(DAY_MS)
  t.strictSame(said(), [])
  certificates.stop()
  t.equal(clock.pending, 0)
  t.equal(dates().size, 0)
})

test('a certificate for other names is logged, and stays in use', async (t) => {
  const { certificates, lines, dates } = watch(NOW, ['elsewhere.example'])
  certificates.use({ cert: (await issue(-10, 10)).cert, key: '', minVersion: 'TLSv1.3' })
  t.match(lines, [{ level: 'error', reason: /not for elsewhere\.example/ }])
  t.strictSame([...dates().keys()], ['certificate'])
  certificates.stop()
})

test('without TLS there is nothing to watch', async (t) => {
  const { certificates, clock, lines, dates } = watch(NOW)
  certificates.use(undefined)
  t.strictSame([lines.length, dates().size, clock.pending], [0, 0, 0])
})
