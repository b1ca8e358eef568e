// Lists the catalogue over gRPC, then follows it.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	registryv1 "waymark/examples/clients/registryv1"
)

func argument(at int, otherwise string) string {
	if len(os.Args) > at {
		return os.Args[at]
	}
	return otherwise
}

func main() {
	address, once, registry := argument(1, "127.0.0.1:9090"), argument(2, "") == "once", argument(3, "")
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer connection.Close()
	client := registryv1.NewCatalogueServiceClient(connection)
	ctx := context.Background()

	for pageToken := ""; ; {
		page, err := client.ListServers(ctx, &registryv1.ListServersRequest{
			Registry: registry, Version: "latest", PageSize: 100, PageToken: pageToken,
		})
		if err != nil {
			log.Fatal(err)
		}
		for _, server := range page.Servers {
			fmt.Println(server.Name, server.Version)
		}
		if pageToken = page.NextPageToken; pageToken == "" {
			break
		}
	}

	resumeToken := ""
	for {
		events, err := client.WatchServers(ctx, &registryv1.WatchServersRequest{Registry: registry, ResumeToken: resumeToken})
		if err != nil {
			log.Fatal(err)
		}
		for {
			response, err := events.Recv()
			if status.Code(err) == codes.Unavailable {
				// A stream that ends is taken up again from the last token.
				break
			} else if err != nil {
				log.Fatal(err)
			}
			switch event := response.Event.(type) {
			case *registryv1.WatchServersResponse_SnapshotBegin:
				fmt.Println("everything before is void")
			case *registryv1.WatchServersResponse_Upserted:
				fmt.Println("+", event.Upserted.Name, event.Upserted.Version)
			case *registryv1.WatchServersResponse_Removed:
				fmt.Println("-", event.Removed.Name, event.Removed.Version)
			case *registryv1.WatchServersResponse_SnapshotEnd:
				fmt.Println("complete")
				if once {
					return
				}
			}
			if response.ResumeToken != "" {
				resumeToken = response.ResumeToken
			}
		}
		time.Sleep(time.Second)
	}
}
