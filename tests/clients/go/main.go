// Asks STS who it is, as any program with the AWS SDK for Go v2 would: by the default credential chain.
//
// Prints the reply's ARN, then the access key it signed with. Fails as the SDK fails.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

func main() {
	if err := whoAmI(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func whoAmI(ctx context.Context) error {
	loaded, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	reply, err := sts.NewFromConfig(loaded).GetCallerIdentity(ctx, nil)
	if err != nil {
		return err
	}
	credentials, err := loaded.Credentials.Retrieve(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%s\n%s\n", *reply.Arn, credentials.AccessKeyID)
	return nil
}
