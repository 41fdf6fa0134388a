"""The part of the clients about the library of vectors."""

from collections.abc import AsyncIterator, Iterator
from typing import Unpack

from vlibrary_client.calls import catalogue, requests, sharing
from vlibrary_client.calls.catalogue import VectorFilters
from vlibrary_client.types import Vector
from vlibrary_client.wire.endpoints import Resource, Transport, endpoint
from vlibrary_client.wire.transport import AsyncTransport, SyncTransport


class _AnyVectors(Resource[Transport]):
    get = endpoint(requests.get_vector)
    list = endpoint(catalogue.list_vectors)
    download = endpoint(requests.download_vector)
    upload = endpoint(requests.upload_vector)
    update = endpoint(requests.update_vector)
    delete = endpoint(requests.delete_vector)
    set_alias = endpoint(requests.set_alias)
    aliases = endpoint(catalogue.list_aliases)
    delete_alias = endpoint(catalogue.delete_alias)
    delete_many = endpoint(catalogue.delete_vectors)
    tag = endpoint(catalogue.change_tags)
    set_status = endpoint(catalogue.change_status)
    prune = endpoint(catalogue.prune_versions)
    compare = endpoint(catalogue.compare_vectors)
    combine = endpoint(catalogue.combine_vectors)
    add_evaluation = endpoint(catalogue.add_evaluation)
    export = endpoint(sharing.export)
    export_gguf = endpoint(sharing.export_gguf)
    import_folder = endpoint(sharing.import_folder)
    push_to_hub = endpoint(sharing.push_to_hub)
    from_hub = endpoint(sharing.from_hub)


class Vectors(_AnyVectors[SyncTransport]):
    """The library of vectors."""

    def iterate(self, **filters: Unpack[VectorFilters]) -> Iterator[Vector]:
        """Every vector that matches the filters, fetched page by page."""
        page = self.list(**filters)
        yield from page
        while page.next_cursor is not None:
            page = self.list(cursor=page.next_cursor, **filters)
            yield from page


class AsyncVectors(_AnyVectors[AsyncTransport]):
    """The library of vectors."""

    async def iterate(self, **filters: Unpack[VectorFilters]) -> AsyncIterator[Vector]:
        """As `Vectors.iterate`."""
        page = await self.list(**filters)
        while True:
            for vector in page:
                yield vector
            if page.next_cursor is None:
                return
            page = await self.list(cursor=page.next_cursor, **filters)
