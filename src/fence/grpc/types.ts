/** What is used of `@grpc/grpc-js`, which the user passes in. Tried with 1.14. */

export interface GrpcMetadata {
  get(key: string): (string | Buffer)[];
  set(key: string, value: string | Buffer): void;
  remove(key: string): void;
  clone(): this;
}

export interface GrpcStatus<Metadata> {
  code: number;
  details: string;
  metadata?: Metadata | null | undefined;
}

export interface ServerListener<Metadata> {
  onReceiveMetadata(metadata: Metadata): void;
  onReceiveMessage(message: unknown): void;
  onReceiveHalfClose(): void;
  onCancel(): void;
}

/** The call that a server's interceptor is given. */
export interface ServerCall<Metadata> {
  start(listener: ServerListener<Metadata>): void;
  sendMetadata(metadata: Metadata): void;
  sendMessage(message: unknown, callback: () => void): void;
  sendStatus(status: GrpcStatus<Metadata>): void;
  startRead(): void;
}

export interface ServerModule<Metadata extends GrpcMetadata, Inner, Outer> {
  readonly ServerInterceptingCall: new (inner: Inner) => Outer;
  readonly Metadata: new () => Metadata;
}

export interface MethodDescriptor {
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
}

export interface ClientListener<Metadata> {
  onReceiveMetadata(metadata: Metadata, next: (metadata: Metadata) => void): void;
  onReceiveStatus(
    status: GrpcStatus<Metadata> & { metadata: Metadata },
    next: (status: GrpcStatus<Metadata> & { metadata: Metadata }) => void,
  ): void;
}

export interface Requester<Metadata> {
  start(
    metadata: Metadata,
    listener: unknown,
    next: (metadata: Metadata, listener: ClientListener<Metadata>) => void,
  ): void;
}

export interface ClientModule<Metadata extends GrpcMetadata, Inner, Outer> {
  readonly InterceptingCall: new (inner: Inner, requester?: Requester<Metadata>) => Outer;
  readonly Metadata: new () => Metadata;
}
