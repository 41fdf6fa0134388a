"""One worker process: load the backbone once, start the loops, drain at the end.

The composition root of a worker; nothing else in this room makes long-lived things.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core.logs import get_logger
from app.core.settings import Settings
from app.library.blobs import get_blob_by_sha256
from app.library.database import make_engine, session_factory
from app.library.storage import ObjectStore
from app.method.backbone import Backbone, load_backbone
from app.method.embedding import space_id
from app.method.features import FeatureCache
from app.worker.bank import VectorBank
from app.worker.demonstrations import DatasetPools
from app.worker.device import DeviceThread
from app.worker.engine.engine import Engine
from app.worker.images import ImageLimits
from app.worker.messages import HealthResponse
from app.worker.server import create_app
from app.worker.serving import Limits, Serving

FEATURE_CACHE_BYTES: Final = 256 * 1024 * 1024

log = get_logger(__name__)
