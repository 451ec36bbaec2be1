/** The stub's HTTP server: requests of session hosting go past the framework, which would read them. */

import { createServer, type RequestListener, type Server } from 'node:http'

export const HOSTING_PREFIX = '/__openclaw__/'

export const createPlainServer = (
  handler: RequestListener,
  serve: RequestListener | undefined,
): Server =>
  createServer((request, response) => {
    const isHosting = request.url?.startsWith(HOSTING_PREFIX) === true
    if (isHosting && serve !== undefined) serve(request, response)
    else handler(request, response)
  })
