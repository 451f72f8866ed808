/** Stamped messages over Kafka, with kafkajs or @platformatic/kafka. */
export type { ConsumerOptions, MessageContext, Report } from "./consumer-options.js";
export { type HighWater, type Mark, MemoryHighWater } from "./high-water.js";
export {
  type KafkajsProducer,
  type KafkaMessage,
  type KafkaProducerOptions,
  kafkajsProducer,
  type PlatformaticProducer,
  platformaticProducer,
} from "./kafka-producer.js";
export { type KafkajsConsumer, type KafkajsPayload, kafkajsConsumer } from "./kafkajs-consumer.js";
export type { Gap } from "./order.js";
export {
  type PlatformaticConsumer,
  type PlatformaticConsumerOptions,
  type PlatformaticMessage,
  type PlatformaticStream,
  platformaticConsumer,
} from "./platformatic-consumer.js";
export {
  type MarkQueries,
  type PostgresHighWater,
  type PostgresHighWaterOptions,
  postgresHighWater,
} from "./postgres-high-water.js";
export type { ProducerOptions, Publisher, StampedProducer } from "./publisher.js";
export type { RunningConsumer } from "./running-consumer.js";
export { type Position, readStamp, type Stamp } from "./stamp.js";
export type { Handler } from "./work.js";
