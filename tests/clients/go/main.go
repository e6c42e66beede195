// Asks STS who it is, as any program with the AWS SDK for Go v2 would: by the default credential chain.
//
// Prints the reply's ARN, then the access key it signed with. Fails as the SDK fails. With the argument "asks" it goes on
// asking: once for each line that it reads, with a line of JSON for each. With CREDENTIALS_TIMEOUT it waits no longer for
// each answer of the agent, as the Secrets Store CSI driver does.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

func main() {
	ctx := context.Background()
	loaded, err := config.LoadDefaultConfig(ctx, config.WithEndpointCredentialOptions(setTimeout))
	if err == nil {
		if len(os.Args) > 1 && os.Args[1] == "asks" {
			err = asks(ctx, loaded)
		} else {
			err = once(ctx, loaded)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func setTimeout(options *endpointcreds.Options) {
	if timeout, err := time.ParseDuration(os.Getenv("CREDENTIALS_TIMEOUT")); err == nil {
		options.HTTPClient = &http.Client{Timeout: timeout}
	}
}

func once(ctx context.Context, loaded aws.Config) error {
	arn, key, err := whoAmI(ctx, loaded, sts.NewFromConfig(loaded))
	if err != nil {
		return err
	}
	fmt.Printf("%s\n%s\n", arn, key)
	return nil
}

func asks(ctx context.Context, loaded aws.Config) error {
	client := sts.NewFromConfig(loaded)
	says := json.NewEncoder(os.Stdout)
	if err := says.Encode(map[string]any{"ready": true}); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		said := map[string]any{"ok": true}
		if arn, key, err := whoAmI(ctx, loaded, client); err != nil {
			said = map[string]any{"ok": false, "error": err.Error()}
		} else {
			said["arn"], said["key"] = arn, key
		}
		if err := says.Encode(said); err != nil {
			return err
		}
	}
	return lines.Err()
}

func whoAmI(ctx context.Context, loaded aws.Config, client *sts.Client) (arn, key string, err error) {
	reply, err := client.GetCallerIdentity(ctx, nil)
	if err != nil {
		return "", "", err
	}
	credentials, err := loaded.Credentials.Retrieve(ctx)
	if err != nil {
		return "", "", err
	}
	return *reply.Arn, credentials.AccessKeyID, nil
}
