/**
 * undici as the bundle has it: what the sidecar imports, and not the mock agents, caches and proxies that
 * undici's own index loads with it. `bundle.ts` holds each against what that index exports.
 */

import api from 'undici/lib/api/index.js'
import buildConnector from 'undici/lib/core/connect.js'
import Agent from 'undici/lib/dispatcher/agent.js'
import Dispatcher from 'undici/lib/dispatcher/dispatcher.js'
import websocket from 'undici/lib/web/websocket/websocket.js'

// The index does the same: a dispatcher has its `request` from here.
Object.assign(Dispatcher.prototype, api)

export const { WebSocket } = websocket
export { Agent, buildConnector }
