"""Lists the catalogue over gRPC, then follows it."""

import pathlib
import sys
import time

import grpc

# grpcio-tools makes the code from the contracts as they are imported.
sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "proto" / "proto"))
messages, services = grpc.protos_and_services("waymark/registry/v1/catalogue.proto")


def main():
    address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9090"
    once = len(sys.argv) > 2 and sys.argv[2] == "once"
    registry = sys.argv[3] if len(sys.argv) > 3 else ""
    client = services.CatalogueServiceStub(grpc.insecure_channel(address))

    page_token = ""
    while True:
        page = client.ListServers(
            messages.ListServersRequest(
                registry=registry, version="latest", page_size=100, page_token=page_token
            )
        )
        for server in page.servers:
            print(server.name, server.version)
        page_token = page.next_page_token
        if not page_token:
            break

    resume_token = ""
    while True:
        request = messages.WatchServersRequest(registry=registry, resume_token=resume_token)
        try:
            for response in client.WatchServers(request):
                event = response.WhichOneof("event")
                if event == "snapshot_begin":
                    print("everything before is void")
                elif event == "upserted":
                    print("+", response.upserted.name, response.upserted.version)
                elif event == "removed":
                    print("-", response.removed.name, response.removed.version)
                elif event == "snapshot_end":
                    print("complete")
                    if once:
                        return
                resume_token = response.resume_token or resume_token
        except grpc.RpcError as error:
            # A stream that ends is taken up again from the last token.
            if error.code() != grpc.StatusCode.UNAVAILABLE:
                raise
        time.sleep(1)


if __name__ == "__main__":
    main()
