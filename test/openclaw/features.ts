/** The features of the compatibility page, and the tests of the suite that show each of them. */

import type { Feature } from '../kit/result-page.ts'

/** A feature without a test stays empty on the page: nothing on it is written by hand. */
export const FEATURES: readonly Feature[] = [
  {
    name: 'enrolment',
    tests: [
      'real nodes with only a ServiceAccount token are listed by their pod names, without any approval',
      '50 new pods behind one address do not trip the limiter of the gateway',
      {
        test: 'new devices are enrolled with a bootstrap token, known ones come without',
        says: 'bootstrap token',
      },
      {
        test: 'new devices are enrolled by an approval of their request, known ones come without',
        says: 'approval',
      },
    ],
  },
  {
    name: 'reconnect as a known device',
    tests: [
      '20 nodes at once are all usable',
      'a newer session of a pod displaces the older one, which is told to come back',
      'a pod recreated under its name keeps one device record and works',
    ],
  },
  {
    name: 'commands',
    tests: [
      'system.which answers through the command line of the gateway',
      'system.run runs on the node where it is allowed',
      'a command that is not in allowedCommands is absent and cannot be invoked',
    ],
  },
  {
    name: 'wider surface',
    tests: ['a surface that widens later is approved as far as it is allowed'],
  },
  {
    name: 'revocation',
    tests: [
      'a pod that is deleted loses its stream at once and its device record',
      'a real node whose pod is deleted is out and stays out',
      '100 pods created and deleted leave no record behind',
      'pods that left while no sidecar ran are removed at its start',
    ],
  },
  {
    name: 'gateway restart',
    tests: [
      'a gateway restart: valid tokens come back by themselves, stale ones by their supervisor',
    ],
  },
  {
    name: 'sidecar restart',
    tests: ['a sidecar killed and started again has its nodes back, with no extra device record'],
  },
  {
    name: 'token rotation',
    tests: [
      'a real node with a short-lived token works, which then grows stale in the background',
      'a gateway restart: valid tokens come back by themselves, stale ones by their supervisor',
    ],
  },
  {
    name: 'session hosting',
    tests: [
      'a session on a pod named by its device runs a command there and brings 30 MiB back',
      'a sidecar that restarts in the middle of a turn lets it end well',
      'the sidecar tells that the slots of a host are free, and that a turn uses one',
      'a pod that is deleted in the middle of a turn loses its hosted streams within a second',
      'the routes are refused without a live stream, with a foreign token, and where hosting is off',
    ],
  },
  {
    name: 'a node behind `connect`',
    tests: [
      'a real node behind connect has no token and no configuration, and is usable',
      'a gateway restart after the token expired restarts no node behind connect',
      'a sidecar that is stopped, killed and started again restarts no node behind connect',
    ],
  },
  { name: 'protocol-3 node', tests: ['a node of protocol 3 is usable'] },
]
