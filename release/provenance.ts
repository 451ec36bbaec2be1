/** How the artifacts of a release were made, as a predicate of SLSA provenance 1. */

import { IMAGE, REPOSITORY, type Source } from './product.ts'
import type { Reference } from './pins.ts'

/** What GitHub tells a workflow about itself; all of it is absent where a person runs the scripts. */
export type GitHub = Readonly<
  Partial<
    Record<
      | 'GITHUB_SERVER_URL'
      | 'GITHUB_REPOSITORY'
      | 'GITHUB_REF'
      | 'GITHUB_SHA'
      | 'GITHUB_WORKFLOW_REF'
      | 'GITHUB_EVENT_NAME'
      | 'GITHUB_REPOSITORY_ID'
      | 'GITHUB_REPOSITORY_OWNER_ID'
      | 'GITHUB_RUN_ID'
      | 'GITHUB_RUN_ATTEMPT'
      | 'RUNNER_ENVIRONMENT',
      string
    >
  >
>

const WORKFLOW = '.github/workflows/release.yml'
const WORKFLOW_BUILD = 'https://slsa-framework.github.io/github-actions-buildtypes/workflow/v1'
const BUILD_BY_HAND = `${REPOSITORY}/blob/main/CONTRIBUTING.md#releases`

/** `images` are the Dockerfile's references; one without a digest is named without it. */
export const describeBuild = (source: Source, images: readonly Reference[], github: GitHub) => {
  const server = github.GITHUB_SERVER_URL
  const repository = server === undefined ? REPOSITORY : `${server}/${github.GITHUB_REPOSITORY}`
  const { GITHUB_REF: ref } = github
  const commit = {
    uri: ref === undefined ? `git+${repository}` : `git+${repository}@${ref}`,
    digest: { gitCommit: source.revision },
  }
  const bases = images.map(({ name, pin }) => ({
    uri: `docker://${name}`,
    ...(pin === undefined ? {} : { digest: { sha256: pin.replace('sha256:', '') } }),
  }))
  return {
    buildDefinition: {
      ...(server === undefined
        ? { buildType: BUILD_BY_HAND, externalParameters: { image: IMAGE } }
        : {
            buildType: WORKFLOW_BUILD,
            externalParameters: { workflow: { ref, repository, path: WORKFLOW } },
            internalParameters: {
              github: {
                event_name: github.GITHUB_EVENT_NAME,
                repository_id: github.GITHUB_REPOSITORY_ID,
                repository_owner_id: github.GITHUB_REPOSITORY_OWNER_ID,
                runner_environment: github.RUNNER_ENVIRONMENT,
              },
            },
          }),
      resolvedDependencies: [commit, ...bases],
    },
    runDetails:
      server === undefined
        ? { builder: { id: BUILD_BY_HAND } }
        : {
            builder: { id: `${server}/${github.GITHUB_WORKFLOW_REF}` },
            metadata: {
              invocationId: `${repository}/actions/runs/${github.GITHUB_RUN_ID}/attempts/${github.GITHUB_RUN_ATTEMPT}`,
            },
          },
  }
}
