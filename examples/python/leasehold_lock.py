"""A lock of Leasehold in Python, by unary calls: about the least that a client has to do, and all of what it must not forget.

    with Lock(channel, "orders/42", ttl=15.0, wait=5.0) as lock:
        save(order, fencing_token=lock.token)

`lock.token` raises `Lost` as soon as this process may no longer believe that it holds the lock, whether or not anybody has
told it so. A storage that rejects lower tokens than it has seen protects the write that is already on its way then.
"""

import threading
import time
import uuid

import grpc

from leasehold.v1 import lease_pb2, lease_pb2_grpc, lock_pb2, lock_pb2_grpc

CALL_SECONDS_MAX = 5.0


class LeaseholdError(Exception):
    """The server refused; `reason` says why, as docs/errors.md lists it."""

    def __init__(self, reason: str, message: str):
        super().__init__(f"{message} ({reason})")
        self.reason = reason


class Busy(Exception):
    """Somebody else holds the lock, and the wait is over."""


class Lost(Exception):
    """The lock is not held, or no longer."""


def now() -> float:
    """Seconds on a clock that never jumps and that goes on while the machine sleeps, where there is one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def reason_of(error: grpc.RpcError) -> str:
    return dict(error.trailing_metadata() or ()).get("leasehold-reason", error.code().name)


# Whether the request arrived is not known: it is repeated, with the same request id.
UNSURE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNKNOWN)


class Lock:
    def __init__(self, channel: grpc.Channel, name: str, ttl: float = 15.0, wait: float = 30.0, owner: str = "", credentials=()):
        """`credentials`: metadata for every call, such as (("authorization", "Bearer lh_..."),)."""
        self._locks = lock_pb2_grpc.LockServiceStub(channel)
        self._leases = lease_pb2_grpc.LeaseServiceStub(channel)
        self._metadata = tuple(credentials)
        self.name, self.owner = name, owner
        self._ttl, self._wait = ttl, wait
        self._token = 0
        self._lease_id = ""
        self._until = 0.0
        self._over = threading.Event()
        self._keeper: threading.Thread | None = None

    # ---------------------------------------------------------------------------------------------- taking it

    def acquire(self) -> int:
        """Waits for the lock and returns its fencing token. Raises Busy, LeaseholdError or grpc.RpcError."""
        request = lock_pb2.AcquireRequest(
            name=self.name,
            mode=lock_pb2.LOCK_MODE_EXCLUSIVE,
            ttl_ms=round(self._ttl * 1000),
            wait_ms=round(self._wait * 1000),
            owner=self.owner,
            # One id for the whole attempt: whatever is repeated has one effect.
            request_id=str(uuid.uuid4()),
        )
        try:
            self._granted(*self._until_answered(request))
        except BaseException:
            self._withdraw(request.request_id)
            raise
        self._keeper = threading.Thread(target=self._keep, name=f"keeps {self.name}", daemon=True)
        self._keeper.start()
        return self.token

    def _until_answered(self, request: lock_pb2.AcquireRequest) -> tuple[lock_pb2.AcquireResponse, float]:
        """A wait is a long poll: the answer `waiting` asks for the same call again."""
        give_up = now() + self._wait + CALL_SECONDS_MAX
        while True:
            sent = now()
            try:
                response = self._locks.Acquire(request, timeout=CALL_SECONDS_MAX, metadata=self._metadata)
            except grpc.RpcError as error:
                if error.code() not in UNSURE or now() > give_up:
                    raise LeaseholdError(reason_of(error), error.details()) from error
                time.sleep(0.2)
                continue
            if response.WhichOneof("outcome") != "waiting":
                return response, sent

    def _granted(self, response: lock_pb2.AcquireResponse, sent: float) -> None:
        if response.WhichOneof("outcome") == "busy":
            holders = ", ".join(holder.owner or "somebody" for holder in response.busy.holders)
            raise Busy(f"{self.name} is held by {holders or 'somebody'}")
        grant = response.grant
        self._token, self._lease_id = grant.token, grant.lease_id
        self._believe(sent, grant.lease_remaining_ms)

    def _withdraw(self, request_id: str) -> None:
        """Nobody may be granted a lock who has gone. Drops the place in the queue, or gives the grant back."""
        try:
            cancel = lock_pb2.CancelAcquireRequest(request_id=request_id)
            self._locks.CancelAcquire(cancel, timeout=CALL_SECONDS_MAX, metadata=self._metadata)
        except grpc.RpcError:
            pass  # its lease ends by itself

    # ---------------------------------------------------------------------------------------------- holding it

    def _believe(self, sent: float, remaining_ms: int) -> None:
        """What remains counts from the send of the request; the margin is for clocks that do not run alike."""
        remaining = remaining_ms / 1000
        self._until = sent + remaining - max(0.1, 0.01 * self._ttl)

    @property
    def held(self) -> bool:
        return not self._over.is_set() and now() < self._until

    @property
    def token(self) -> int:
        """The fencing token, to be sent along with every write. Raises Lost: then nothing may be written any more."""
        if not self.held:
            raise Lost(f"the lock {self.name} is not held")
        return self._token

    def _keep(self) -> None:
        """Renews at a third of the TTL, or when the server says, and more often after a failure."""
        pause = self._ttl / 3
        while not self._over.wait(pause):
            if now() >= self._until:
                break
            sent = now()
            try:
                request = lease_pb2.RenewLeaseRequest(lease_id=self._lease_id)
                renewed = self._leases.RenewLease(request, timeout=self._ttl / 6, metadata=self._metadata)
            except grpc.RpcError as error:
                if error.code() not in UNSURE:
                    break  # UNKNOWN_LEASE: it is lost
                pause = self._ttl / 10
                continue
            if any(end.token == self._token for end in renewed.hold_ends):
                break  # an administrator takes it away; the release of whoever holds it confirms that it has stopped
            self._believe(sent, renewed.remaining_ms)
            pause = renewed.renew_after_ms / 1000
        self._over.set()

    # ---------------------------------------------------------------------------------------------- giving it back

    def release(self) -> bool:
        """Whether it was held until now."""
        was_held = self.held
        self._over.set()  # from here on it does not count as held, whatever becomes of the call
        self._until = 0.0
        try:
            request = lock_pb2.ReleaseRequest(name=self.name, token=self._token)
            self._locks.Release(request, timeout=CALL_SECONDS_MAX, metadata=self._metadata)
        except grpc.RpcError as error:
            if error.code() in UNSURE:
                return False  # its lease ends by itself
            return was_held and reason_of(error) != "STALE_TOKEN"
        return was_held

    def __enter__(self) -> "Lock":
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
