/** Mistakes in what an operator writes: the configuration, and the files it names. */

import { chmod } from 'node:fs/promises'
import { createAuthority } from '../kit/authority.ts'
import { ORIGINAL, WORKERS } from '../kit/config-sources.ts'
import { holdPort, type Misconfiguration, type Site } from './site.ts'

const DAY_MS = 86_400_000
const set = (...settings: readonly string[]) => settings.flatMap((setting) => ['--set', setting])
const OPENCLAW = set('gateway.protocol=openclaw')

/** Checks good documents that have one bad line more; `told` is said of each. */
const checkLines =
  (...lines: readonly (readonly [line: string, told: string])[]) =>
  async (site: Site) => {
    for (const [line, told] of lines) {
      await site.write('config.yaml', `${WORKERS}${line}\n`)
      await site.run('check-config', 78, told)
    }
  }

/** Both refuse to go on, in the same words. */
const checkAndServe = async (site: Site, told: string, args: readonly string[]) => {
  for (const command of ['check-config', 'serve'] as const)
    await site.run(command, 78, told, { args })
}

/** Makes the worker port's certificate, and the arguments that use it. */
const useCertificate = async (site: Site, request: object) => {
  const authority = await createAuthority('workers')
  const { cert, key } = await authority.issue({ commonName: 'gateway', hosts: ['gw'], ...request })
  const [certFile, keyFile] = [await site.write('tls.crt', cert), await site.write('tls.key', key)]
  return set(`listen.tls={certFile: ${certFile}, keyFile: ${keyFile}}`)
}

/** Root can read every file, and nobody else can become another user. */
const asNobody = async (work: () => Promise<void>) => {
  if (process.geteuid?.() !== 0) return work()
  process.seteuid?.(65_534)
  try {
    await work()
  } finally {
    process.seteuid?.(0)
  }
}

const fromTo = (from: number, to: number) => ({
  notBefore: new Date(Date.now() + from * DAY_MS),
  notAfter: new Date(Date.now() + to * DAY_MS),
})

export const WRITTEN_CASES: readonly Misconfiguration[] = [
  {
    number: 6,
    mistake: 'the file of the gateway secret is empty',
    async play(site) {
      await site.write('secret', '')
      const told = 'The file is empty. … Write the file, or mount it.'
      await checkAndServe(site, `gateway.auth.secretFile (secret) … ${told}`, OPENCLAW)
    },
  },
  {
    number: 7,
    mistake: 'the TLS key belongs to another certificate; the two files are swapped',
    async play(site) {
      const args = await useCertificate(site, {})
      const other = { crt: 'key', key: 'crt' } as const
      const swapped = args.map((arg) =>
        arg.replace(/(?<=tls\.)(crt|key)/g, (end) => other[end as keyof typeof other]),
      )
      const told =
        'listen.tls.certFile (tls.key) … This is not a PEM file with certificates. … Name a PEM file with certificates.'
      await site.run('check-config', 78, told, { args: swapped })
      await site.write('tls.key', (await (await createAuthority()).issue({ commonName: 'b' })).key)
      const mixed =
        'listen.tls.keyFile (tls.key) … The private key does not match the certificate. … Name a certificate and its own private key.'
      await site.run('check-config', 78, mixed, { args })
    },
  },
  {
    number: 8,
    mistake: 'the TLS certificate is expired, not valid yet, for clients only, or ends in 5 h',
    async play(site) {
      for (const [request, told] of [
        [fromTo(-90, -1), 'The certificate of CN=gateway expired at … Renew the certificate'],
        [fromTo(1, 90), 'The certificate of CN=gateway is not valid before … Compare this machine'],
        [
          { usage: 'client' },
          'The certificate is not for servers … Issue it with the extended key usage serverAuth.',
        ],
      ] as const) {
        const args = await useCertificate(site, request)
        await site.run('check-config', 78, `listen.tls.certFile (tls.crt) … ${told}`, { args })
        await site.run('doctor', 69, `[fail] certificates: listen.tls.certFile … ${told}`, { args })
        await site.watchLog(`"file":"tls.crt" … ${told}`, { args })
      }
      const args = await useCertificate(site, fromTo(-30, 5 / 24))
      const told = '[warn] certificates: listen.tls.certFile … expires soon, at … Renew it'
      await site.run('doctor', 69, told, { args })
    },
  },
  {
    number: 14,
    mistake: 'YAML: a tab, a wrong indent, a key twice',
    play: checkLines(
      ['log:\n\tlevel: info', '(config.yaml:4:1) … Tabs are not allowed … Indent with spaces.'],
      [
        'log:\n    level: info\n  x: y',
        '(config.yaml:5:1) … must start at the same column … Begin all options of a section in the same column.',
      ],
      ['k8sTrust: {}', '(config.yaml:3:1) … This key is used twice. … Keep one of the two.'],
    ),
  },
  {
    number: 15,
    mistake: 'an option that does not exist; one in the wrong case',
    play: checkLines(
      [
        '  audience: x',
        'k8sTrust.audience (config.yaml:3:3) … This option does not exist. … Did you mean audiences?',
      ],
      [
        '  Audiences: [x]',
        'k8sTrust.Audiences (config.yaml:3:3) … This option does not exist. … Did you mean audiences?',
      ],
    ),
  },
  {
    number: 16,
    mistake: 'durations: 20sec, 20, and one out of range',
    play: checkLines(
      [
        'drain: { window: 20sec }',
        'drain.window (config.yaml:3:18) … This is not a duration. … such as 30s',
      ],
      [
        'drain: { window: 20 }',
        'drain.window (config.yaml:3:18) … A duration must be text with a unit … such as 500ms, 30s',
      ],
      [
        'drain: { window: 1h }',
        'drain.window (config.yaml:3:18) … The value is out of range … 0s to 10m',
      ],
    ),
  },
  {
    number: 17,
    mistake: '`enabled: yes`, which is text in YAML 1.2',
    play: checkLines([
      '  enabled: yes',
      'k8sTrust.enabled (config.yaml:3:12) … Expected a boolean, got text. … Write true or false, without quotes.',
    ]),
  },
  {
    number: 18,
    mistake: '`audiences: x`, a list without brackets',
    play: checkLines([
      '  audiences: x',
      'k8sTrust.audiences (config.yaml:3:14) … Expected a list, got text. … Write a list, such as [a, b].',
    ]),
  },
  {
    number: 19,
    mistake: 'another process has the port',
    play: (site) =>
      holdPort(site.workers, () =>
        site.run(
          'serve',
          69,
          'listen.workers … address already in use … Another process has this port: stop it, or set another port.',
        ),
      ),
  },
  {
    number: 20,
    mistake: 'the same port twice',
    play: (site) =>
      site.run(
        'check-config',
        78,
        'listen.admin (--set listen.admin) … The admin port and the worker port are the same. … Set different ports',
        { args: set(`listen.admin=127.0.0.1:${site.workers}`) },
      ),
  },
  {
    number: 21,
    mistake: 'the device seed is missing',
    play: (site) =>
      checkAndServe(
        site,
        'gateway.deviceSeedFile (/nowhere/seed) … The file does not exist. … Mount the file there, or correct the path.',
        [...OPENCLAW, ...set('gateway.deviceSeedFile=/nowhere/seed')],
      ),
  },
  {
    number: 22,
    mistake: 'the device seed is too short',
    async play(site) {
      await site.write('seed', 'short')
      const told =
        'gateway.deviceSeedFile (seed) … The seed is shorter than 16 bytes. … Write 32 random bytes to the file'
      await checkAndServe(site, told, OPENCLAW)
      await site.run('doctor', 69, `[fail] files: ${told}`, { args: OPENCLAW })
    },
  },
  {
    number: 23,
    mistake: 'the configuration is absent, a directory, or unreadable',
    async play(site) {
      const how = 'Name a readable file with --config FILE.'
      const look = (config: string, shown: string, what: string) =>
        site.run('check-config', 78, `(${shown}) … ${what} … ${how}`, { config })
      await look('/nowhere/config.yaml', '/nowhere/config.yaml', 'The file does not exist.')
      await look('/etc', '/etc', 'This is a directory, not a file.')
      const config = await site.write('config.yaml', WORKERS)
      await chmod(config, 0o000)
      await asNobody(() =>
        look(config, 'config.yaml', 'The file cannot be read: permission denied.'),
      )
    },
  },
  {
    number: 26,
    mistake: "gateway.url: 0.0.0.0, the pod's IP, a Service, http://",
    async play(site) {
      const where = 'gateway.url (--set gateway.url)'
      for (const host of ['0.0.0.0', '10.244.1.7', 'openclaw-gateway.openclaw.svc']) {
        const told = `${where} … The gateway is not on loopback … Use 127.0.0.1`
        await site.run('check-config', 78, told, { args: set(`gateway.url=ws://${host}:18789`) })
      }
      const told = `${where} … The gateway URL … must start with ws://`
      await site.run('check-config', 78, told, { args: set('gateway.url=http://127.0.0.1:18789') })
    },
  },
  {
    number: 28,
    mistake: 'a variable with a mistyped name',
    play: (site) =>
      site.run(
        'check-config',
        78,
        '(AUTH_SIDECAR_K8STRUST_SOURCEADDRESS) … This variable does not match any option. … Did you mean AUTH_SIDECAR_K8S_TRUST_SOURCE_ADDRESS?',
        { env: { AUTH_SIDECAR_K8STRUST_SOURCEADDRESS: 'report' } },
      ),
  },
  {
    number: 31,
    mistake: 'allowedRoles: [operator] with protocol openclaw',
    async play(site) {
      const entry = '{namespace: openclaw, serviceAccount: w, allowedRoles: [operator]}'
      const args = [...OPENCLAW, ...set(`k8sTrust.allowedIdentities=[${entry}]`)]
      const told =
        'k8sTrust.allowedIdentities[0].allowedRoles … Every worker of this entry is refused with role_not_allowed. … Write [node], or set gateway.protocol to stream.'
      await site.run('check-config', 0, told, { args })
      await site.run('doctor', 69, `[warn] configuration: ${told}`, { args })
      await site.watchLog(told, { args })
    },
  },
  {
    number: 32,
    mistake: 'namespace "*", serviceAccount "*"',
    async play(site) {
      const args = set('k8sTrust.allowedIdentities=[{namespace: "*", serviceAccount: "*"}]')
      const told =
        'k8sTrust.allowedIdentities[0] … Every pod of the cluster is admitted. … Name the namespace and the ServiceAccount of the workers.'
      await site.run('check-config', 0, told, { args })
      await site.run('doctor', 69, `[warn] configuration: ${told}`, { args })
    },
  },
  {
    number: 34,
    mistake: 'bind: lan in the original, nested form',
    async play(site) {
      await site.write('config.yaml', ORIGINAL)
      const told = 'Workers could then bypass the sidecar … Set it to loopback'
      await site.run('check-config', 0, `gateway.bind (config.yaml:5:13) … ${told}`)
    },
  },
]
