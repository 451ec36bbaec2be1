/** Stands in for the packages left out of the bundle: any access throws and says so. */

module.exports = new Proxy(
  {},
  {
    get(_, name) {
      throw new Error(`${String(name)} is of a package that was left out of the bundle`)
    },
  },
)
