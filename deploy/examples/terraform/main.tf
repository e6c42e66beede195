# The chart by Terraform's Helm provider, and a role for one service account. The provider is configured by the caller: it needs the
# cluster's address and credentials.
terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.30"
    }
    helm = {
      source  = "hashicorp/helm"
      version = "~> 3.0"
    }
  }
}

variable "cluster_name" {
  description = "Name of the EKS cluster, exactly as in EKS."
  type        = string
}

variable "region" {
  description = "Region of the EKS cluster."
  type        = string
}

variable "image" {
  description = "Image of the agent, with tag or digest."
  type        = string
}

variable "cart_role_arn" {
  description = "Role of the service account cart; its trust policy lets pods.eks.amazonaws.com do sts:AssumeRole and sts:TagSession."
  type        = string
}

resource "helm_release" "pod_identity_agent" {
  name      = "pod-identity-agent"
  namespace = "kube-system"
  chart     = "${path.module}/../../chart"
  # An update goes from node to node.
  timeout = 1800
  values  = [file("${path.module}/values.yaml")]
  set = [
    { name = "clusterName", value = var.cluster_name },
    { name = "env.AWS_REGION", value = var.region },
    { name = "image.override", value = var.image },
  ]
}

# Pods created before it have no variables of EKS Pod Identity; create them again.
resource "aws_eks_pod_identity_association" "cart" {
  cluster_name    = var.cluster_name
  namespace       = "shop"
  service_account = "cart"
  role_arn        = var.cart_role_arn
}
