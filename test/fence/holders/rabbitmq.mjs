/** Publishes under a claim, and stands still with the message in hand: checked, stamped, and not sent. */
import { rabbitmqProducer } from "@leasehold/fence/rabbitmq";
import amqp from "amqplib";
import { ask } from "./verdict.mjs";

export async function open({ url, queue, verdicts }) {
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();
  return async (claim, value, inside) => {
    let stopped;
    const slow = {
      on: (event, listener) => channel.on(event, listener),
      publish(...args) {
        if (args[2].length === 0) return channel.publish(...args); // the marker
        stopped ??= inside(); // later attempts do not stop again
        return void stopped.then(() => channel.publish(...args));
      },
    };
    const publisher = await rabbitmqProducer(slow, { queue, confirmMs: 60_000 }).open(claim);
    const answer = await ask(verdicts, claim);
    await publisher.publish({ content: value });
    await answer();
  };
}
