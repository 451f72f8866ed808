/** Stamped messages over RabbitMQ, with amqplib. */
export type { ConsumerOptions, MessageContext, Report } from "./consumer-options.js";
export { type HighWater, type Mark, MemoryHighWater } from "./high-water.js";
export type { Gap } from "./order.js";
export {
  type MarkQueries,
  type PostgresHighWater,
  type PostgresHighWaterOptions,
  postgresHighWater,
} from "./postgres-high-water.js";
export type { ProducerOptions, Publisher, StampedProducer } from "./publisher.js";
export {
  type AmqpChannel,
  type AmqpMessage,
  type RabbitmqConsumerOptions,
  rabbitmqConsumer,
} from "./rabbitmq-consumer.js";
export {
  type AmqpConfirmChannel,
  type AmqpPublishOptions,
  type RabbitmqMessage,
  type RabbitmqProducerOptions,
  rabbitmqProducer,
} from "./rabbitmq-producer.js";
export type { RunningConsumer } from "./running-consumer.js";
export { type Position, readStamp, type Stamp } from "./stamp.js";
export type { Handler } from "./work.js";
