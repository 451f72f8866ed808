/** Tests against real systems, and what is done where those cannot be had. */
import { beforeAll, describe } from "vitest";
import { needServices, type ServiceName, servicesSkipped } from "./packages.mjs";

const INSTALL_LIMIT_MS = 600_000;

/**
 * A `describe` whose tests need these services: installs what is missing (see `packages.mjs`). With
 * LEASEHOLD_TEST_SERVICES=skip it is skipped, which its title says and vitest's summary counts.
 *
 * @example
 * describeWithServices("the fence in PostgreSQL", ["postgres"], () => {
 *   test("refuses a stale token", async () => {});
 * });
 */
export function describeWithServices(title: string, services: readonly ServiceName[], body: () => void): void {
  const skipped = servicesSkipped();
  const why = ` (needs ${services.join(", ")}: skipped by LEASEHOLD_TEST_SERVICES=skip)`;
  describe.skipIf(skipped)(skipped ? title + why : title, () => {
    // Its own time limit: what is missing may have to be downloaded first.
    beforeAll(() => needServices(services), INSTALL_LIMIT_MS);
    body();
  });
}
