"""What figures are measured on: backbones, requests, services, stored keys."""
