import { Client, credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { onTestFinished } from "vitest";
import { decode, decodeStatus, encode, type leasehold, type MessageType, v1 } from "../../src/client/wire/index.js";

/** A refused call, as every gRPC client sees it. */
export interface Refused {
  readonly code: string;
  readonly reason: string;
  readonly message: string;
}

const methods = {
  CreateLease: ["LeaseService", v1.CreateLeaseRequest, v1.CreateLeaseResponse],
  RenewLease: ["LeaseService", v1.RenewLeaseRequest, v1.RenewLeaseResponse],
  RevokeLease: ["LeaseService", v1.RevokeLeaseRequest, v1.RevokeLeaseResponse],
  GetLease: ["LeaseService", v1.GetLeaseRequest, v1.GetLeaseResponse],
  ListLeases: ["LeaseService", v1.ListLeasesRequest, v1.ListLeasesResponse],
  Acquire: ["LockService", v1.AcquireRequest, v1.AcquireResponse],
  AcquireAll: ["LockService", v1.AcquireAllRequest, v1.AcquireAllResponse],
  CancelAcquire: ["LockService", v1.CancelAcquireRequest, v1.CancelAcquireResponse],
  Release: ["LockService", v1.ReleaseRequest, v1.ReleaseResponse],
  Transfer: ["LockService", v1.TransferRequest, v1.TransferResponse],
  Downgrade: ["LockService", v1.DowngradeRequest, v1.DowngradeResponse],
  SetMetadata: ["LockService", v1.SetMetadataRequest, v1.SetMetadataResponse],
  DescribeLock: ["LockService", v1.DescribeLockRequest, v1.DescribeLockResponse],
  ListLocks: ["LockService", v1.ListLocksRequest, v1.ListLocksResponse],
  Validate: ["LockService", v1.ValidateRequest, v1.ValidateResponse],
  Tick: ["ClockService", v1.TickRequest, v1.TickResponse],
  ForceRelease: ["AdminService", v1.ForceReleaseRequest, v1.ForceReleaseResponse],
  TopLocks: ["AdminService", v1.TopLocksRequest, v1.TopLocksResponse],
  Status: ["AdminService", v1.StatusRequest, v1.StatusResponse],
} as const;

type Methods = typeof methods;
type Name = keyof Methods;
type RequestOf<N extends Name> = Parameters<Methods[N][1]["encode"]>[0];
type ResponseOf<N extends Name> = ReturnType<Methods[N][2]["decode"]>;

/** Unary calls, as clients in other languages make them. */
export class UnaryClient {
  readonly #client: Client;

  constructor(address: string) {
    this.#client = new Client(address, credentials.createInsecure(), { "grpc.enable_http_proxy": 0 });
    onTestFinished(() => this.#client.close());
  }

  /** Resolves with the response, rejects with a `Refused`. `abort` ends the call from the client's side. */
  call<N extends Name>(
    name: N,
    request: RequestOf<N>,
    abort?: AbortSignal,
    metadata = new Metadata(),
  ): Promise<ResponseOf<N>> {
    const [service, requestType, responseType] = methods[name];
    return new Promise((resolve, reject) => {
      const call = this.#client.makeUnaryRequest(
        `/leasehold.v1.${service}/${name}`,
        (message: RequestOf<N>) => encode(requestType as MessageType<RequestOf<N>, unknown>, message),
        (bytes: Buffer) => decode(responseType as unknown as MessageType<never, ResponseOf<N>>, bytes),
        request,
        metadata,
        (error: ServiceError | null, response?: ResponseOf<N>) =>
          error ? reject(refused(error)) : resolve(response as ResponseOf<N>),
      );
      abort?.addEventListener("abort", () => call.cancel(), { once: true });
    });
  }

  async acquire(request: leasehold.v1.AcquireRequest.$Properties): Promise<ResponseOf<"Acquire">> {
    return this.call("Acquire", request);
  }
}

function refused(error: ServiceError): Refused {
  const bytes = error.metadata?.get("grpc-status-details-bin")[0];
  const details = Buffer.isBuffer(bytes) ? decodeStatus(bytes) : undefined;
  return { code: status[error.code] as string, reason: details?.reason ?? "", message: error.details };
}
