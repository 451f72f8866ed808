/** Writes a register in PostgreSQL and stands still inside: see ../holder-process.mjs. */
import { holdOf } from "@leasehold/fence";
import { postgresFence } from "@leasehold/fence/postgres";
import pg from "pg";

export async function open({ url, schema, style, isolation }) {
  const pool = new pg.Pool({ connectionString: url, max: 1 });
  const fence = postgresFence(pool, { schema });
  const table = `${schema}.registers`;
  const styles = {
    // Everything written, nothing committed.
    tx: (claim, value, inside) =>
      fence.tx(
        claim,
        async (tx) => {
          await tx.query(`update ${table} set value = $1 where resource = $2`, [value, claim.name]);
          await inside();
        },
        isolation ? { isolation } : {},
      ),
    // One statement: it stands still with everything checked and nothing sent.
    row: async (claim, value, inside) => {
      const hold = holdOf(claim);
      await inside();
      await fence.updateRow(hold, { table, set: { value }, where: { resource: claim.name } });
    },
    // Stands still while the server is at work for it.
    sleeping: (claim, value, inside) =>
      fence.tx(claim, async (tx) => {
        await tx.query(`update ${table} set value = $1 where resource = $2`, [value, claim.name]);
        const sleeping = tx.query("select pg_sleep(60)");
        await Promise.all([sleeping, inside()]);
      }),
    // Stands still while the server sends it more than the buffers of the connection take.
    reading: (claim, value, inside) =>
      fence.tx(claim, async (tx) => {
        await tx.query(`update ${table} set value = $1 where resource = $2`, [value, claim.name]);
        const result = tx.query("select repeat('x', 1000000) from generate_series(1, 300)");
        await Promise.all([result, inside()]);
      }),
  };
  return styles[style];
}
