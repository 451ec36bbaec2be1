/** For fastify: no route has a schema, so no schema compiler is loaded. */

import type { FastifyServerOptions } from 'fastify'

const refuse = (): never => {
  throw new Error('a route has a schema, but no schema compiler is installed')
}

export const NO_SCHEMAS: NonNullable<FastifyServerOptions['schemaController']> = {
  compilersFactory: { buildValidator: refuse, buildSerializer: refuse },
}
