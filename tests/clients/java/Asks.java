import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import software.amazon.awssdk.auth.credentials.AwsCredentialsProvider;
import software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider;
import software.amazon.awssdk.services.sts.StsClient;

/**
 * Asks STS who it is, once for each line, as any program with the AWS SDK for Java v2 would: by the default credential
 * chain. Prints a line of JSON for each: the ARN and the access key, or what the SDK says.
 */
final class Asks {
  public static void main(String[] args) throws IOException {
    AwsCredentialsProvider provider = DefaultCredentialsProvider.builder().build();
    StsClient client = StsClient.builder().credentialsProvider(provider).build();
    System.out.println("{\"ready\":true}");
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    while (lines.readLine() != null) {
      System.out.println(ask(client, provider));
    }
  }

  private static String ask(StsClient client, AwsCredentialsProvider provider) {
    try {
      String arn = client.getCallerIdentity().arn();
      String key = provider.resolveCredentials().accessKeyId();
      return "{\"ok\":true,\"arn\":" + quoted(arn) + ",\"key\":" + quoted(key) + "}";
    } catch (RuntimeException error) {
      return "{\"ok\":false,\"error\":" + quoted(withCauses(error)) + "}";
    }
  }

  /** What a stack trace says, without the stack. */
  private static String withCauses(Throwable error) {
    StringBuilder text = new StringBuilder(error.toString());
    for (Throwable cause = error.getCause(); cause != null; cause = cause.getCause()) {
      text.append(" Caused by: ").append(cause);
    }
    return text.toString();
  }

  private static String quoted(String text) {
    StringBuilder json = new StringBuilder("\"");
    for (char c : text.toCharArray()) {
      if (c == '"' || c == '\\') {
        json.append('\\').append(c);
      } else if (c < ' ') {
        json.append(' ');
      } else {
        json.append(c);
      }
    }
    return json.append('"').toString();
  }
}
