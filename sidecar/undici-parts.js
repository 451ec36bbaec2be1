/**
 * undici as the bundle has it: what the sidecar imports, without the mock agents, caches and
 * proxies that undici's own index also loads. `bundle.ts` checks each part against that index.
 */

import api from 'undici/lib/api/index.js'
import buildConnector from 'undici/lib/core/connect.js'
import Agent from 'undici/lib/dispatcher/agent.js'
import Dispatcher from 'undici/lib/dispatcher/dispatcher.js'
import websocket from 'undici/lib/web/websocket/websocket.js'

// As the index does: this gives every dispatcher its `request`.
Object.assign(Dispatcher.prototype, api)

export const { WebSocket } = websocket
export { Agent, buildConnector }
