/** Stands in the bundle for the packages that are left out of it: who asks something of one after all is told so. */

module.exports = new Proxy(
  {},
  {
    get(_, name) {
      throw new Error(`${String(name)} is of a package that was left out of the bundle`)
    },
  },
)
